// The prompt's tokens as chips, coloured by the phrase that caught them, before anything runs.

import { ask, element, extend, fit, keepOpen, panel, sourceOf, tint, valueOf, watch } from "./frontend.js";

const CLOSED = 46;
const OPEN = 130;
const OPENED = "compinv_tokens";

class TokenChips {
    constructor(node) {
        this.node = node;
        this.asked = 0;
        const onclick = () => {
            this.node.properties[OPENED] = !this.open;
            this.size(true);
        };
        this.toggle = element("button", { type: "button", title: "Show or hide the prompt's tokens", onclick });
        this.chips = element("div");
        this.said = element("div", { role: "status" });
        this.root = element("div", { className: "compinv-tokens" }, this.toggle, this.chips, this.said);
        this.root.addEventListener("pointerdown", (event) => event.stopPropagation());
        keepOpen(node, OPENED);
        panel(node, "token_chips", this.root, () => (this.open ? OPEN : CLOSED));
        watch(node, () => this.read(), (question) => this.tell(question));
        this.size();
    }

    get open() {
        return this.node.properties[OPENED];
    }

    read() {
        const text = valueOf(this.node, "text");
        return { text, phrases: phrasesOf(this.node), open: this.open };
    }

    size(shrinks = false) {
        const { open } = this;
        this.sized = open;
        this.toggle.textContent = open ? "▾ tokens" : "▸ tokens";
        this.toggle.setAttribute("aria-expanded", open);
        this.chips.hidden = this.said.hidden = !open;
        fit(this.node, this.root, open ? OPEN : CLOSED, shrinks);
    }

    async tell({ text, phrases, open }) {
        const number = ++this.asked;
        if (this.sized !== open) this.size();
        if (!open) return;
        if (text === null) return this.show([], ["The prompt is made when it runs."]);
        if (!text.trim()) return this.show([], ["The prompt is empty."]);
        try {
            const { chunks, said } = await ask("tokens", { text, phrases: phrases ?? [] });
            if (number !== this.asked) return;
            const more = phrases === null ? ["The phrases are made when it runs."] : [];
            this.show(chunks, [...said, ...more], phrases ?? []);
        } catch (error) {
            if (number === this.asked) this.show([], [error.message]);
        }
    }

    show(chunks, said, phrases = []) {
        const parts = chunks.map((tokens, index) => {
            const name = `Chunk ${index + 1}, ${tokens.length} of 75 tokens`;
            const heading = chunks.length > 1 ? [element("p", { textContent: name })] : [];
            const part = element("div", {}, ...heading, ...tokens.map((token) => chip(token, phrases)));
            part.dataset.chunk = index;
            return part;
        });
        this.chips.replaceChildren(...parts);
        this.said.replaceChildren(...said.map((sentence) => element("p", { textContent: sentence })));
    }
}

function chip({ text, weight, phrase }, phrases) {
    const made = element("span", { className: "compinv-chip", textContent: text });
    const heavy = weight === 1 ? "" : `, weight ${weight}`;
    made.title = phrase === null ? `no phrase${heavy}` : `${phrases[phrase]}${heavy}`;
    if (heavy) made.append(element("sub", { textContent: `×${weight}` }));
    if (phrase !== null) {
        made.classList.add("caught");
        made.dataset.phrase = phrase;
        tint(made, phrase);
    }
    return made;
}

/** A node's phrases: its own, or those of the layout it is given; null where they are made when it runs. */
function phrasesOf(node) {
    const own = valueOf(node, "phrases");
    if (own?.trim() || (own === null && sourceOf(node, "phrases"))) return own === null ? null : lines(own);
    const layout = sourceOf(node, "layout");
    if (!layout) return [];
    const text = valueOf(layout, "phrases");
    return text === null ? null : lines(text);
}

const lines = (text) => text.split("\n").map((line) => line.trim().split(/\s+/).join(" ")).filter(Boolean);

for (const id of ["CompInvApplyLayoutGuidance", "CompInvRecordAttention"]) {
    extend(id, { created: (node) => new TokenChips(node) });
}
