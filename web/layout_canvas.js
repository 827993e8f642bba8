// A canvas on the nodes that make layouts: boxes are drawn, moved and named here, and live in the node's `boxes` text.

import { element, extend, fit, hide, panel, pictureUrl, setValue, sourceOf, valueOf, watch, widgetOf } from "./frontend.js";

const CLOSED = 46;
const OPEN = 310;
// What the editor leaves free around an element, both sides together.
const MARGIN = 20;
const OPENED = "compinv_canvas";
const LEAST = 0.02;
// Pixels on the screen: how near to an edge it is grasped, and to a line a box snaps.
const GRASP = 7;
const SNAP = 6;
const COLOURS = 7;
const STEP = 0.01;
const BIG_STEP = 0.05;

const folded = (text) => text.trim().split(/\s+/).join(" ");
const same = (one, other) => folded(one).toLowerCase() === folded(other).toLowerCase();
const between = (value, low, high) => Math.min(Math.max(value, low), high);
const rounded = (value) => Math.round(value * 1e4) / 1e4;
const percent = (value) => `${Math.round(value * 100)} %`;

class LayoutCanvas {
    constructor(node, name) {
        this.node = node;
        this.predicted = [];
        this.chosen = null;
        // While something is dragged: the box as it is now; it is kept when the pointer is let go.
        this.drag = null;
        this.build(name);
        hide(node, "boxes");
        panel(node, "layout_canvas", this.root, () => (this.open ? OPEN : CLOSED));
        watch(node, () => this.read(), () => this.draw());
    }

    build(name) {
        const button = (text, label, onclick) => element("button", { type: "button", textContent: text, title: label, onclick });
        this.toggle = button("", "Show or hide the canvas", () => this.setOpen(!this.open));
        this.naming = element("select", { title: "Phrase of the box", onchange: () => this.rename(this.naming.value) });
        this.adder = button("+ box", "Add a box for the next phrase", () => this.add({ x0: 0.3, y0: 0.3, x1: 0.7, y1: 0.7 }));
        this.remover = button("", "", () => this.remove());
        this.said = element("span", { role: "status" });
        this.ground = element("div", { className: "compinv-ground", tabIndex: -1 });
        this.ground.setAttribute("role", "group");
        this.ground.setAttribute("aria-label", `${name}: boxes of the phrases`);
        this.bar = element("div", { className: "compinv-bar" }, this.toggle, this.adder, this.naming, this.remover, this.said);
        this.view = element("div", { className: "compinv-view" }, this.ground);
        this.root = element("div", { className: "compinv-canvas" }, this.bar, this.view);
        for (const event of ["pointerdown", "mousedown", "dblclick"]) {
            this.root.addEventListener(event, (happened) => happened.stopPropagation());
        }
        this.ground.addEventListener("pointerdown", (event) => this.grasp(event));
        this.ground.addEventListener("pointermove", (event) => this.pull(event));
        this.ground.addEventListener("pointerup", () => this.release(true));
        this.ground.addEventListener("pointercancel", () => this.release(false));
        this.ground.addEventListener("dblclick", (event) => this.addAt(event));
        this.ground.addEventListener("keydown", (event) => this.press(event));
    }

    /** Everything that the canvas shows, so that it is drawn again when any of it changes. */
    read() {
        const { node } = this;
        const size = ["width", "height"].map((side, i) => valueOf(node, side) ?? this.size?.[i] ?? widgetOf(node, side)?.value);
        const { drawn, fault } = drawnOn(node);
        const text = valueOf(node, "phrases");
        const phrases = (text ?? "").split("\n").map(folded).filter(Boolean);
        const { predicted, picture } = this;
        const opened = node.properties?.[OPENED] ?? null;
        const fed = Boolean(sourceOf(node, "bboxes") ?? sourceOf(node, "predictor"));
        return (this.seen = { size, drawn, fault, phrases, unknown: text === null, predicted, picture, opened, fed });
    }

    get open() {
        const { opened, drawn, predicted, fed } = this.seen ?? this.read();
        return opened ?? (drawn.length > 0 || predicted.length > 0 || !fed);
    }

    setOpen(open) {
        this.node.properties[OPENED] = open;
        this.draw();
    }

    /** What the node told after a run. */
    hear({ compinv_predicted, compinv_picture, compinv_size }) {
        this.predicted = compinv_predicted ?? [];
        this.picture = compinv_picture?.[0] ?? null;
        this.size = compinv_size;
        this.draw();
    }

    /** The boxes that are shown: drawn ones, and predicted ones of phrases without a drawn one. */
    boxes() {
        const { drawn, predicted, phrases } = this.seen;
        const others = predicted.filter((box) => phrases.some((phrase) => same(phrase, box.phrase)));
        const shown = [
            ...drawn.map((box) => ({ ...box, drawn: true })),
            ...others.filter((box) => !drawn.some((own) => same(own.phrase, box.phrase))),
        ];
        return shown.map((box) => ({ ...box, ...(this.drag?.box && same(this.drag.box.phrase, box.phrase) ? this.drag.box : {}) }));
    }

    /** Phrases that have no box yet. */
    free() {
        return this.seen.phrases.filter((phrase) => !this.boxes().some((box) => same(box.phrase, phrase)));
    }

    find(phrase) {
        return phrase === null ? undefined : this.boxes().find((box) => same(box.phrase, phrase));
    }

    /** Keep a box as drawn, in the place of the one that `phrase` had. */
    keep(box, phrase = box.phrase) {
        const kept = { phrase: box.phrase };
        for (const corner of ["x0", "y0", "x1", "y1"]) kept[corner] = rounded(box[corner]);
        const others = this.read().drawn.filter((other) => !same(other.phrase, phrase));
        const order = (entry) => this.seen.phrases.findIndex((each) => same(each, entry.phrase));
        this.write([...others, kept].sort((one, other) => order(one) - order(other)));
        this.chosen = box.phrase;
    }

    write(boxes) {
        setValue(this.node, "boxes", boxes.length ? JSON.stringify(boxes) : "");
        this.read();
    }

    add(place) {
        this.read();
        const [phrase] = this.free();
        if (!phrase) return this.draw();
        this.keep({ phrase, ...place });
        this.draw(true);
    }

    addAt(event) {
        if (event.target !== this.ground) return;
        const { x, y } = this.point(event);
        const [left, top] = [between(x - 0.2, 0, 0.6), between(y - 0.2, 0, 0.6)];
        this.add({ x0: left, y0: top, x1: left + 0.4, y1: top + 0.4 });
    }

    remove() {
        const box = this.find(this.chosen);
        if (!box?.drawn) return;
        this.write(this.read().drawn.filter((other) => !same(other.phrase, box.phrase)));
        this.draw(true);
    }

    rename(phrase) {
        const box = this.find(this.chosen);
        if (box) this.keep({ ...box, phrase }, box.phrase);
        this.draw(true);
    }

    point(event) {
        const area = this.ground.getBoundingClientRect();
        return {
            x: between((event.clientX - area.left) / area.width, 0, 1),
            y: between((event.clientY - area.top) / area.height, 0, 1),
            reachX: 1 / area.width,
            reachY: 1 / area.height,
        };
    }

    grasp(event) {
        if (event.button !== 0) return;
        event.preventDefault();
        this.read();
        const at = this.point(event);
        const phrase = event.target.dataset.phrase ?? null;
        const box = this.find(phrase);
        this.chosen = box?.phrase ?? null;
        this.drag = { from: at, start: box, edges: box ? edgesNear(box, at) : null, box: null, guides: {} };
        this.ground.setPointerCapture(event.pointerId);
        this.draw(true);
    }

    pull(event) {
        const at = this.point(event);
        if (!this.drag) {
            const box = this.find(event.target.dataset?.phrase ?? null);
            if (box) event.target.style.cursor = cursorFor(edgesNear(box, at));
            return;
        }
        const { from, start, edges } = this.drag;
        if (Math.hypot((at.x - from.x) / at.reachX, (at.y - from.y) / at.reachY) < 3 && !this.drag.box) return;
        let box;
        if (start && !edges.x && !edges.y) {
            box = moved(start, at.x - from.x, at.y - from.y);
        } else if (start) {
            box = { ...start, ...(edges.x && { [edges.x]: at.x }), ...(edges.y && { [edges.y]: at.y }) };
        } else {
            const [phrase] = this.free();
            if (!phrase && !this.drag.phrase) return;
            this.chosen = this.drag.phrase ??= phrase;
            const [left, right] = [from.x, at.x].sort((a, b) => a - b);
            const [top, bottom] = [from.y, at.y].sort((a, b) => a - b);
            box = { phrase: this.chosen, x0: left, y0: top, x1: right, y1: bottom, drawn: true };
        }
        this.drag.guides = {};
        if (!event.altKey) box = this.snapped(box, at);
        this.drag.box = sized(box, edges ?? {});
        this.draw();
    }

    release(wanted) {
        const { box, start } = this.drag ?? {};
        this.drag = null;
        if (wanted && box) this.keep(box, start?.phrase ?? box.phrase);
        this.draw(true);
    }

    /** A box moved onto the lines that are near: edges of other boxes, the middle, the border. */
    snapped(box, at) {
        const { start, edges } = this.drag;
        const others = this.boxes().filter((other) => !same(other.phrase, box.phrase));
        const whole = start && !edges.x && !edges.y;
        const result = { ...box };
        for (const [axis, low, high, reach] of [["x", "x0", "x1", at.reachX], ["y", "y0", "y1", at.reachY]]) {
            const lines = [0, 0.5, 1, ...others.flatMap((other) => [other[low], other[high]])];
            const middle = (box[low] + box[high]) / 2;
            const own = whole || !start ? [box[low], box[high]] : edges[axis] ? [box[edges[axis]]] : [];
            const ways = own.flatMap((value) => lines.map((line) => ({ line, way: line - value, value })));
            if (whole) ways.push({ line: 0.5, way: 0.5 - middle, value: middle });
            const near = ways.filter(({ way }) => Math.abs(way) <= SNAP * reach).sort((a, b) => Math.abs(a.way) - Math.abs(b.way))[0];
            if (!near) continue;
            this.drag.guides[axis] = near.line;
            for (const corner of [low, high]) if (whole || box[corner] === near.value) result[corner] += near.way;
        }
        return result;
    }

    press(event) {
        this.read();
        const box = this.find(event.target.dataset?.phrase ?? null);
        if (!box) return;
        this.chosen = box.phrase;
        const step = event.shiftKey ? BIG_STEP : STEP;
        const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
        if (way && event.altKey) this.keep(sized({ ...box, x1: between(box.x1 + way[0], 0, 1), y1: between(box.y1 + way[1], 0, 1) }, {}));
        else if (way) this.keep(moved(box, ...way));
        else if (event.key === "Delete" || event.key === "Backspace") this.remove();
        else return;
        // The editor would move or delete the node.
        event.preventDefault();
        event.stopPropagation();
        this.draw(true);
    }

    draw(focus = false) {
        const { size, phrases, fault, unknown, picture } = this.read();
        const { open } = this;
        const focused = focus || this.ground.contains(document.activeElement);
        const boxes = this.boxes();
        this.view.hidden = !open;
        this.toggle.textContent = open ? "▾ boxes" : "▸ boxes";
        this.toggle.setAttribute("aria-expanded", open);
        this.ground.style.setProperty("--aspect", size[0] / size[1]);
        this.ground.style.backgroundImage = picture ? `url("${pictureUrl(picture)}")` : "";
        const chosen = this.find(this.chosen);
        const shown = boxes.map((box) => this.drawnBox(box, phrases, same(box.phrase, this.chosen ?? "")));
        const guides = Object.entries(this.drag?.guides ?? {}).map(([axis, line]) => guide(axis, line));
        this.ground.replaceChildren(...shown, ...guides);
        if (focused && chosen) this.ground.querySelector(".chosen")?.focus({ preventScroll: true });
        const free = this.free();
        this.adder.disabled = !free.length;
        this.adder.hidden = !open;
        this.naming.hidden = this.remover.hidden = !open || !chosen;
        if (chosen) {
            const names = [chosen.phrase, ...free];
            this.naming.replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
            const back = this.predicted.some((box) => same(box.phrase, chosen.phrase));
            this.remover.textContent = back ? "↺ back" : "✕ box";
            this.remover.title = back ? "Back to the prediction" : "Delete the box";
            this.remover.disabled = !chosen.drawn;
        }
        this.said.textContent = open ? sentence(fault, unknown, phrases, free, boxes) : "";
        if (this.wasOpen !== open) {
            this.wasOpen = open;
            this.root.style.minHeight = `${(open ? OPEN : CLOSED) - MARGIN}px`;
            if (this.node.graph) fit(this.node);
        }
    }

    drawnBox(box, phrases, chosen) {
        const number = phrases.findIndex((phrase) => same(phrase, box.phrase));
        const name = element("span", { textContent: number < 0 ? `${box.phrase} (no phrase)` : box.phrase });
        const made = element("div", { className: "compinv-box", tabIndex: 0 }, name);
        made.classList.toggle("predicted", !box.drawn);
        made.classList.toggle("chosen", chosen);
        made.dataset.phrase = box.phrase;
        made.setAttribute("role", "button");
        const place = `left ${percent(box.x0)}, top ${percent(box.y0)}, right ${percent(box.x1)}, bottom ${percent(box.y1)}`;
        made.setAttribute("aria-label", `${box.phrase}${box.drawn ? "" : ", predicted"}: ${place}`);
        made.title = "Drag to move, edges to resize; arrow keys move, with Shift further, with Alt resize; Delete";
        made.style.setProperty("--c", `var(--c${number < 0 ? 6 : number % COLOURS})`);
        const sides = { left: box.x0, top: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0 };
        for (const [side, value] of Object.entries(sides)) made.style[side] = `${value * 100}%`;
        return made;
    }
}

/** The boxes in a node's text; what cannot be read is left for the person to see. */
function drawnOn(node) {
    const text = widgetOf(node, "boxes")?.value ?? "";
    if (!text.trim()) return { drawn: [], fault: false };
    try {
        const drawn = JSON.parse(text);
        const whole = Array.isArray(drawn) && drawn.every((box) => typeof box?.phrase === "string" && box.x0 < box.x1 && box.y0 < box.y1);
        return whole ? { drawn, fault: false } : { drawn: [], fault: true };
    } catch {
        return { drawn: [], fault: true };
    }
}

function sentence(fault, unknown, phrases, free, boxes) {
    if (fault) return "The boxes that were kept cannot be read; drawing replaces them.";
    if (unknown) return "The phrases are made when it runs.";
    if (!phrases.length) return "Write phrases, one per line; each gets a box.";
    if (free.length) return boxes.length ? `No box: ${free.join(", ")}` : "Drag to draw the box of each phrase.";
    return "";
}

function moved(box, x, y) {
    const [dx, dy] = [between(x, -box.x0, 1 - box.x1), between(y, -box.y0, 1 - box.y1)];
    return { ...box, x0: box.x0 + dx, x1: box.x1 + dx, y0: box.y0 + dy, y1: box.y1 + dy };
}

/** A box within the picture that is not turned over nor too small, changed at the edges that are dragged. */
function sized(box, edges) {
    const result = { ...box };
    for (const [low, high] of [["x0", "x1"], ["y0", "y1"]]) {
        if (result[high] - result[low] >= LEAST) continue;
        if (edges.x === low || edges.y === low) result[low] = between(result[high] - LEAST, 0, 1 - LEAST);
        else result[low] = between(result[low], 0, 1 - LEAST);
        result[high] = Math.max(result[high], result[low] + LEAST);
    }
    return result;
}

/** Which corner values the pointer is near to; null where it is near to none. */
function edgesNear(box, { x, y, reachX, reachY }) {
    const near = (low, high, value, reach) => {
        const reached = Math.min(GRASP * reach, (box[high] - box[low]) / 3);
        if (value - box[low] <= reached) return low;
        return box[high] - value <= reached ? high : null;
    };
    return { x: near("x0", "x1", x, reachX), y: near("y0", "y1", y, reachY) };
}

function cursorFor({ x, y }) {
    if (x && y) return (x === "x0") === (y === "y0") ? "nwse-resize" : "nesw-resize";
    return x ? "ew-resize" : y ? "ns-resize" : "move";
}

function guide(axis, line) {
    const made = element("div", { className: "compinv-guide" });
    const across = axis === "x" ? { left: `${line * 100}%`, top: 0, width: "1px", height: "100%" } : { top: `${line * 100}%`, left: 0, height: "1px", width: "100%" };
    return Object.assign(made.style, across), made;
}

for (const [id, name] of [["CompInvLayoutFromBoxes", "Layout From Boxes"], ["CompInvPredictLayout", "Predict Layout"]]) {
    const canvases = new WeakMap();
    extend(id, {
        created: (node) => canvases.set(node, new LayoutCanvas(node, name)),
        output: (node, told) => canvases.get(node)?.hear(told ?? {}),
    });
}
