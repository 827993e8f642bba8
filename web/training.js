// Live training: how a training stands, its curves, and its saved steps, of which one can be made the result.

import { ask, element, extend, grow, listen, nodeOf, panel, pictureUrl } from "./frontend.js";
import { setValue, sourceOf, svg, valueOf, whenSet, widgetOf } from "./frontend.js";

const METHODS = {
    CompInvTrainConcept: "textual inversion",
    CompInvTrainCustomDiffusion: "Custom Diffusion",
    CompInvTrainDreamBooth: "DreamBooth",
};
const STEP = "saved_step";
const [WIDTH, HEIGHT] = [300, 100];
// Pixels of the parts: a line of text, the curves with their legend, the saved steps without and with pictures.
const [TEXT, CURVES, SAVED, PICTURES] = [18, 122, 44, 106];
// Shares of one; the others are drawn between their own least and most.
const SHARES = ["composition", "distance"];

const views = new WeakMap();

/** What one node shows. */
class View {
    constructor(node) {
        this.node = node;
        this.height = this.asked = 0;
        this.text = element("div", { className: "text" });
        this.curves = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
        this.legend = element("div", { className: "legend" });
        this.saved = element("div", { className: "saved", role: "group", ariaLabel: "Saved steps" });
        this.root = element("div", { className: "compinv-training", hidden: true });
        this.root.append(this.text, this.curves, this.legend, this.saved);
        // A click here is no drag of the node, and scrolling no zoom of the graph.
        for (const kind of ["pointerdown", "pointermove", "wheel"]) {
            this.root.addEventListener(kind, (event) => event.stopPropagation());
        }
        panel(node, "training", this.root, () => this.height);
        whenSet(node, STEP, () => this.mark());
        whenSet(node, "name", () => this.askSoon());
        // The values of a node that is loaded or pasted come after it was made.
        this.askSoon();
    }

    askSoon() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.ask(), 200);
    }

    /** Show what the server has of the training that the node's name and method stand for. */
    async ask() {
        const name = String(valueOf(this.node, "name") ?? "").trim();
        const method = METHODS[this.node.comfyClass];
        const joint = Boolean(this.node.inputs && sourceOf(this.node, "more_concepts"));
        const number = ++this.asked;
        const nothing = { run: "", text: "", curves: [], saved: [] };
        const told = name
            ? await ask("run", { method, name, joint }).catch((error) => ({ ...nothing, text: error.message }))
            : nothing;
        if (number === this.asked) this.show(told);
    }

    /** Show a training that runs, unless the node's name has become another's. */
    hear(told) {
        const name = valueOf(this.node, "name")?.trim();
        if (name && told.run.split(/[+.]/)[0] !== name) return;
        // What was asked before is older.
        this.asked++;
        this.show(told);
    }

    show({ run, text, curves, saved }) {
        this.root.dataset.run = run;
        // The rest of a running training's text is what the host shows under the node.
        this.text.textContent = this.text.title = text.split("\n")[0];
        this.draw(curves.filter(({ points }) => points.length > 1));
        this.offer(saved);
        this.mark();
        const pictures = saved.some(({ picture }) => picture);
        const drawn = this.curves.childElementCount > 0;
        const parts = [text && TEXT, drawn && CURVES, saved.length && (pictures ? PICTURES : SAVED)];
        const height = parts.reduce((sum, part) => sum + (part || 0), 0);
        this.curves.style.display = drawn ? "" : "none";
        this.root.hidden = !height;
        if (height === this.height) return;
        this.height = height;
        this.root.style.minHeight = `${height}px`;
        grow(this.node);
    }

    draw(curves) {
        const last = Math.max(1, ...curves.map(({ points }) => points.at(-1)[0]));
        const lines = curves.map(({ name, points }) => {
            const values = points.map(([, value]) => value);
            const shares = SHARES.includes(name);
            const low = shares ? 0 : Math.min(...values);
            const high = shares ? Math.max(1, ...values) : Math.max(...values);
            const at = ([step, value]) => {
                const height = high > low ? (value - low) / (high - low) : 0.5;
                return `${((step / last) * WIDTH).toFixed(1)},${((1 - height) * (HEIGHT - 8) + 4).toFixed(1)}`;
            };
            return svg("polyline", { class: name, points: points.map(at).join(" ") });
        });
        this.curves.replaceChildren(...lines);
        const labels = curves.map(({ name, points }) => `${name} ${points.at(-1)[1].toPrecision(3)}`);
        this.curves.setAttribute("aria-label", `Curves up to step ${last}: ${labels.join(", ")}`);
        this.legend.replaceChildren(
            ...curves.map(({ name }, number) => element("span", { className: name }, labels[number])),
        );
    }

    /** Offer the saved steps; where nothing has changed the buttons stay, and the focus on them. */
    offer(saved) {
        const key = JSON.stringify(saved);
        if (key === this.offered) return;
        this.offered = key;
        const follow = this.button(0, "as keep\nsays", "Train; keep says which step is the result");
        const steps = saved.map(({ step, score, best, picture }) => {
            const told = score === null || score === undefined ? "" : `\n${best ? "★ " : ""}${score.toFixed(2)}`;
            const title = `Make step ${step} the result${best ? ", the best of the saved ones" : ""}`;
            const button = this.button(step, `${step}${told}`, `${title}${told && ": composition" + told.slice(1)}`);
            button.classList.toggle("best", best);
            if (picture) button.prepend(element("img", { src: pictureUrl(picture), alt: "" }));
            return button;
        });
        this.saved.replaceChildren(...(saved.length ? [follow, ...steps] : []));
    }

    button(step, label, title) {
        const text = element("span", {}, label);
        text.style.whiteSpace = "pre-line";
        const button = element("button", { type: "button", title, ariaLabel: title }, text);
        button.dataset.step = step;
        button.addEventListener("click", () => setValue(this.node, STEP, step));
        return button;
    }

    /** Mark the step that the node's widget names. */
    mark() {
        const chosen = String(widgetOf(this.node, STEP)?.value ?? 0);
        for (const button of this.saved.children) {
            button.setAttribute("aria-pressed", String(button.dataset.step === chosen));
        }
    }
}

for (const nodeId of Object.keys(METHODS)) {
    extend(nodeId, { created: (node) => views.set(node, new View(node)) });
}

listen("compinv.training", (told) => views.get(nodeOf(told.node))?.hear(told));
