// A canvas on the nodes that make layouts: boxes are drawn, moved and named here, and live in the node's `boxes` text.

import * as frontend from "./frontend.js";

const { element, setValue, sourceOf, tint, valueOf, widgetOf } = frontend;

const CLOSED = 46;
const OPEN = 310;
const OPENED = "compinv_canvas";
const LEAST = 0.02;
// Pixels on the screen: how near to an edge it is grasped, and to a line a box snaps.
const GRASP = 7;
const SNAP = 6;
const STEP = 0.01;
const BIG_STEP = 0.05;

const folded = (text) => text.trim().split(/\s+/).join(" ");
const same = (one, other) => folded(one).toLowerCase() === folded(other).toLowerCase();
const between = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (sides) => Object.fromEntries(Object.entries(sides).map(([side, value]) => [side, `${value * 100}%`]));
const rounded = (value) => Math.round(value * 1e4) / 1e4;

class LayoutCanvas {
    constructor(node, name) {
        this.node = node;
        this.predicted = [];
        this.chosen = null;
        // While something is dragged: the box as it is now; it is kept when the pointer is let go.
        this.drag = null;
        this.build(name);
        frontend.hide(node, "boxes");
        frontend.panel(node, "layout_canvas", this.root, () => (this.open ? OPEN : CLOSED));
        frontend.watch(node, () => this.read(), () => this.draw());
    }

    build(name) {
        const button = (textContent, title, onclick) =>
            element("button", { type: "button", textContent, title, onclick });
        this.toggle = button("", "Show or hide the canvas", () => this.setOpen(!this.open));
        this.naming = element("select", { title: "Phrase of the box", onchange: () => this.rename(this.naming.value) });
        const middle = { x0: 0.3, y0: 0.3, x1: 0.7, y1: 0.7 };
        this.adder = button("+ box", "Add a box for the next phrase", () => this.add(middle));
        this.remover = button("", "", () => this.remove());
        this.said = element("span", { role: "status" });
        this.ground = element("div", { className: "compinv-ground", tabIndex: -1 });
        this.ground.setAttribute("role", "group");
        this.ground.setAttribute("aria-label", `${name}: boxes of the phrases`);
        const tools = [this.toggle, this.adder, this.naming, this.remover, this.said];
        this.bar = element("div", { className: "compinv-bar" }, ...tools);
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
        const known = (side, i) => valueOf(node, side, "number") ?? this.size?.[i] ?? widgetOf(node, side)?.value;
        const size = ["width", "height"].map(known);
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
        const has = (list, phrase) => list.some((box) => same(box.phrase ?? box, phrase));
        const others = predicted.filter(({ phrase }) => has(phrases, phrase) && !has(drawn, phrase));
        const shown = [...drawn.map((box) => ({ ...box, drawn: true })), ...others];
        const now = this.drag?.box;
        if (now && !has(shown, now.phrase)) shown.push(now);
        return shown.map((box) => (now && same(now.phrase, box.phrase) ? { ...box, ...now } : box));
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
        if (phrase) this.keep({ phrase, ...place });
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
        const from = this.point(event);
        const box = this.find(event.target.dataset.phrase ?? null);
        const [phrase] = this.free();
        this.chosen = box?.phrase ?? null;
        if (box || phrase) {
            const start = box ?? { phrase, x0: from.x, y0: from.y, x1: from.x, y1: from.y, drawn: true };
            this.drag = { from, start, edges: box && edgesNear(box, from), box: null, guides: {} };
            this.ground.setPointerCapture(event.pointerId);
        }
        this.draw(true);
    }

    pull(event) {
        const at = this.point(event);
        if (!this.drag) {
            const box = this.find(event.target.dataset?.phrase ?? null);
            if (box) event.target.style.cursor = cursorFor(edgesNear(box, at));
            return;
        }
        const { from, start } = this.drag;
        if (Math.hypot((at.x - from.x) / at.reachX, (at.y - from.y) / at.reachY) < 3 && !this.drag.box) return;
        // A new box is spanned from where it began, to whichever side.
        const edges = this.drag.edges ?? { x: at.x < from.x ? "x0" : "x1", y: at.y < from.y ? "y0" : "y1" };
        const whole = !edges.x && !edges.y;
        let box = { ...start, ...(edges.x && { [edges.x]: at.x }), ...(edges.y && { [edges.y]: at.y }) };
        if (whole) box = moved(start, at.x - from.x, at.y - from.y);
        this.drag.guides = {};
        if (!event.altKey) box = this.snapped(box, edges, at);
        this.drag.box = sized(box, edges);
        this.chosen = start.phrase;
        this.draw();
    }

    release(wanted) {
        const box = this.drag?.box;
        this.drag = null;
        if (wanted && box) this.keep(box);
        this.draw(true);
    }

    /** A box moved onto the lines that are near: edges of other boxes, the middle, the border. */
    snapped(box, edges, at) {
        const others = this.boxes().filter((other) => !same(other.phrase, box.phrase));
        const whole = !edges.x && !edges.y;
        const result = { ...box };
        for (const [axis, reach] of [["x", at.reachX], ["y", at.reachY]]) {
            const [low, high] = [`${axis}0`, `${axis}1`];
            const lines = [0, 0.5, 1, ...others.flatMap((other) => [other[low], other[high]])];
            const corners = whole ? [low, high] : edges[axis] ? [edges[axis]] : [];
            const ways = corners.flatMap((corner) => lines.map((line) => ({ line, way: line - box[corner] })));
            if (whole) ways.push({ line: 0.5, way: 0.5 - (box[low] + box[high]) / 2 });
            const [near] = ways.sort((a, b) => Math.abs(a.way) - Math.abs(b.way));
            if (!near || Math.abs(near.way) > SNAP * reach) continue;
            this.drag.guides[axis] = near.line;
            for (const corner of corners) result[corner] += near.way;
        }
        return result;
    }

    press(event) {
        this.read();
        const box = this.find(event.target.dataset?.phrase ?? null);
        if (!box) return;
        this.chosen = box.phrase;
        const step = event.shiftKey ? BIG_STEP : STEP;
        const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
        const way = ways[event.key];
        if (way && event.altKey) {
            const [x1, y1] = [between(box.x1 + way[0], 0, 1), between(box.y1 + way[1], 0, 1)];
            this.keep(sized({ ...box, x1, y1 }, {}));
        } else if (way) this.keep(moved(box, ...way));
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
        this.ground.style.backgroundImage = picture ? `url("${frontend.pictureUrl(picture)}")` : "";
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
        const shrinks = this.wasOpen !== undefined;
        if (this.wasOpen !== open) frontend.fit(this.node, this.root, open ? OPEN : CLOSED, shrinks);
        this.wasOpen = open;
    }

    drawnBox(box, phrases, chosen) {
        const number = phrases.findIndex((phrase) => same(phrase, box.phrase));
        const name = element("span", { textContent: number < 0 ? `${box.phrase} (no phrase)` : box.phrase });
        const made = element("div", { className: "compinv-box", tabIndex: 0 }, name);
        made.classList.toggle("predicted", !box.drawn);
        made.classList.toggle("chosen", chosen);
        made.dataset.phrase = box.phrase;
        made.setAttribute("role", "button");
        const place = ["x0", "y0", "x1", "y1"].map((corner) => `${Math.round(box[corner] * 100)} %`);
        made.setAttribute("aria-label", `${box.phrase}${box.drawn ? "" : ", predicted"}: ${place.join(", ")}`);
        made.title = "Drag to move, its edges to resize; arrow keys, with Shift further, with Alt to resize; Delete";
        tint(made, number);
        const [left, top, width, height] = [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0];
        Object.assign(made.style, percent({ left, top, width, height }));
        return made;
    }
}

/** The boxes in a node's text; what cannot be read is left for the person to see. */
function drawnOn(node) {
    const text = widgetOf(node, "boxes")?.value ?? "";
    if (!text.trim()) return { drawn: [], fault: false };
    try {
        const drawn = JSON.parse(text);
        const isBox = (box) => typeof box?.phrase === "string" && box.x0 < box.x1 && box.y0 < box.y1;
        if (Array.isArray(drawn) && drawn.every(isBox)) return { drawn, fault: false };
    } catch {
        // Said below, like any other text that is no list of boxes.
    }
    return { drawn: [], fault: true };
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
    for (const axis of ["x", "y"]) {
        const [low, high] = [`${axis}0`, `${axis}1`];
        if (result[high] - result[low] >= LEAST) continue;
        if (edges[axis] === low) result[low] = between(result[high] - LEAST, 0, 1 - LEAST);
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
    const made = element("div", { className: `compinv-guide ${axis}` });
    Object.assign(made.style, percent({ [axis === "x" ? "left" : "top"]: line }));
    return made;
}

const NODES = { CompInvLayoutFromBoxes: "Layout From Boxes", CompInvPredictLayout: "Predict Layout" };
for (const [id, name] of Object.entries(NODES)) {
    const canvases = new WeakMap();
    frontend.extend(id, {
        created: (node) => canvases.set(node, new LayoutCanvas(node, name)),
        output: (node, told) => canvases.get(node)?.hear(told ?? {}),
    });
}
