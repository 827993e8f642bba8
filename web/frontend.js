// The only file that touches ComfyUI's frontend; everything else in this folder goes through it.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

document.head.append(
    Object.assign(document.createElement("link"), {
        rel: "stylesheet",
        href: new URL("compinv.css", import.meta.url).href,
    }),
);

// Colours in compinv.css; the last one is grey.
const COLOURS = 7;
/** Stands for all types of our nodes. */
export const ALL = "CompInv";
const hearers = [];

/** Whether a node is of this type of ours, or of any. */
export const isOurs = (node, nodeId = ALL) =>
    nodeId === ALL ? Boolean(node?.comfyClass?.startsWith(ALL)) : node?.comfyClass === nodeId;

/** Act on our nodes of one type: `created(node)` once one is there, `output(node, output)` with what it last told. */
export function extend(nodeId, { created, output }) {
    const hear = (outputs) => {
        for (const [id, told] of Object.entries(outputs)) {
            const node = nodeOf(id);
            if (isOurs(node, nodeId)) output(node, told);
        }
    };
    if (output) hearers.push(hear);
    app.registerExtension({
        name: `compinv.${nodeId}.${extend.count++}`,
        nodeCreated(node) {
            if (!isOurs(node, nodeId)) return;
            created?.(node);
            if (output) {
                const before = node.onExecuted;
                node.onExecuted = function (told) {
                    before?.call(this, told);
                    output(this, told);
                };
            }
        },
        // The person comes back to a workflow, or opens an earlier run.
        onNodeOutputsUpdated(outputs) {
            if (output) hear(outputs);
        },
    });
}
extend.count = 0;

// After a reload the editor has forgotten what the last run told; the server has not.
app.registerExtension({
    name: "compinv.told",
    afterConfigureGraph() {
        const workflow = openWorkflow();
        // All that come from a prompt in API form have the same id, of zeros.
        if (!/[1-9a-f]/.test(workflow)) return;
        ask("told", { workflow }).then((told) => {
            if (openWorkflow() === workflow) hearers.forEach((hear) => hear(told));
        });
    },
});

/** The id of the workflow that is open. */
export const openWorkflow = () => (app.rootGraph ?? app.graph).id;

/** The node of an execution id such as `5` or, within subgraphs, `7:5`; or of a subgraph's own id and `5`. */
export function nodeOf(id) {
    let graph = app.rootGraph ?? app.graph;
    let node = null;
    const parts = String(id).split(":");
    if (graph?.subgraphs?.has(parts[0])) graph = graph.subgraphs.get(parts.shift());
    for (const part of parts) {
        node = graph?.getNodeById(/^\d+$/.test(part) ? Number(part) : part) ?? null;
        graph = node?.subgraph;
    }
    return node;
}

/**
 * Put an element of ours on a node, alike in both renderers. It is not saved: values live in the node's own widgets.
 * `height` is the least it needs in pixels, or a function that says it; call `fit` when it changes.
 */
export function panel(node, name, element, height) {
    element.classList.add("compinv");
    const widget = node.addDOMWidget(name, "compinv", element, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: typeof height === "function" ? height : () => height,
        getValue: () => "",
        setValue: () => {},
    });
    widget.serialize = false;
    // Undo makes nodes anew, and the Vue renderer goes on showing the element of the node that was there before.
    whileInGraph(node, () => {
        const key = `${node.graph?.id}:${node.id}:${name}`;
        const before = shown.get(key)?.deref();
        if (!element.isConnected && before?.isConnected) before.replaceWith(element);
        if (element.isConnected) shown.set(key, new WeakRef(element));
    });
    return widget;
}
const shown = new Map();

function whileInGraph(node, look) {
    let timer = null;
    const { onAdded, onRemoved } = node;
    node.onAdded = function (...given) {
        onAdded?.apply(this, given);
        timer ??= setInterval(look, 150);
    };
    node.onRemoved = function (...given) {
        clearInterval(timer);
        timer = null;
        onRemoved?.apply(this, given);
    };
}

/** Give an element of ours another least height; the node grows if it has to, or also `shrinks` to what it needs. */
export function fit(node, element, height, shrinks) {
    // The editor leaves ten pixels free on each side of an element.
    element.style.minHeight = `${height - 20}px`;
    if (!node.graph) return;
    if (shrinks) node.setSize([node.size[0], node.computeSize()[1]]);
    grow(node);
}

/** Keep in a property whether a panel is open: on new nodes it is, on those of workflows from before the panel not. */
export function keepOpen(node, property) {
    node.properties[property] = true;
    const { onConfigure } = node;
    node.onConfigure = function (saved, ...given) {
        onConfigure?.call(this, saved, ...given);
        this.properties[property] = saved.properties?.[property] ?? false;
    };
}

/** Hide a widget whose value a panel of ours shows; it stays the place of the value. */
export function hide(node, name) {
    const widget = widgetOf(node, name);
    if (widget) widget.hidden = widget.options.hidden = true;
}

/**
 * Call `changed(value)` with what `read()` returns, and again whenever that is another for 300 ms, as long as the node
 * is in a graph: links, undo, typing and other nodes all change it, and no event tells of all of them.
 */
export function watch(node, read, changed) {
    let told = null;
    let last = null;
    whileInGraph(node, () => {
        const value = read();
        const now = JSON.stringify(value);
        if (now === last && now !== told) changed(value, (told = now));
        last = now;
    });
}

/** Take a panel off a node again. */
export function dropPanel(node, name) {
    const index = node.widgets?.findIndex((widget) => widget.name === name && widget.type === "compinv") ?? -1;
    if (index < 0) return;
    node.widgets[index].onRemove?.();
    node.widgets.splice(index, 1);
    node.graph?.setDirtyCanvas(true, true);
}

/** Make a node as large as what is on it needs, and never smaller; returns by how much it has grown. */
export function grow(node) {
    const [width, height] = node.size, needed = node.computeSize();
    node.setSize([Math.max(width, needed[0]), Math.max(height, needed[1])]);
    node.graph?.setDirtyCanvas(true, true);
    return node.size[1] - height;
}

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** Set a widget's value as a person would, so that undo knows of it. */
export function setValue(node, name, value) {
    const widget = widgetOf(node, name);
    if (!widget || widget.value === value) return;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    node.graph?.setDirtyCanvas(true, true);
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
}

/** Call back whenever a widget's value is set, by whomever. */
export function whenSet(node, name, callback) {
    const widget = widgetOf(node, name);
    if (!widget) return;
    const before = widget.callback;
    widget.callback = function (...given) {
        const result = before?.apply(this, given);
        callback(widget.value);
        return result;
    };
}

/** The node behind an input, through reroutes and the borders of subgraphs; null where nothing is connected. */
export function sourceOf(node, name) {
    const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
    return slot < 0 ? null : node.getInputNode(slot);
}

/** What an input will get, as far as that stands in a widget: its own, or the one of the node behind it. Else null. */
export function valueOf(node, name, type = "string") {
    const source = sourceOf(node, name);
    if (source) {
        const texts = (source.widgets ?? []).filter((widget) => typeof widget.value === type);
        return texts.length === 1 ? texts[0].value : null;
    }
    return widgetOf(node, name)?.value ?? null;
}

/** Ask the pack's own part of the server; an error is its sentence. */
export async function ask(path, question = {}) {
    const options = { method: "POST", body: JSON.stringify(question) };
    const answer = await api.fetchApi(`/compinv/${path}`, options);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    return told;
}

/** Listen to what the server sends; returns a function that ends it. */
export function listen(event, callback) {
    const hear = ({ detail }) => callback(detail);
    api.addEventListener(event, hear);
    return () => api.removeEventListener(event, hear);
}

/** The address of a picture that the server keeps, as in a node's output. */
export function pictureUrl({ filename, subfolder = "", type = "temp", version = "" }) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, version })}`);
}

/** Make a part of a drawing: `svg("line", { x1: 0, … }, child)`. */
export function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
}

/** Give an element the colour of a phrase, and what is written on it one that can be read; −1 is no phrase. */
export function tint(made, number) {
    const colour = number < 0 ? COLOURS - 1 : number % COLOURS;
    made.style.setProperty("--c", `var(--c${colour})`);
    made.style.setProperty("--t", colour ? "#000" : "#fff");
}

/** Make an element: `element("button", { title: "…", onclick }, "text", child)`. */
export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}
