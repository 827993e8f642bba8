// Where each phrase was attended to, at any step: heatmaps over the picture, and curves over the steps.

import { element, extend, grow, panel, pictureUrl, svg } from "./frontend.js";

const GONE = "The maps of the last run are gone, for ComfyUI empties its temp folder when it starts; run again.";
const SIDE = 320, OVER_PICTURE = 0.6;
const CHART = { width: 320, height: 90, left: 4, top: 16, bottom: 4 };

function loaded(file) {
    return new Promise((resolve, reject) => {
        const image = new Image();
        image.onload = () => resolve(image);
        image.onerror = () => reject(new Error(GONE));
        image.src = pictureUrl(file);
    });
}

async function fetched(file) {
    const answer = await fetch(pictureUrl(file));
    if (!answer.ok) throw new Error(GONE);
    const shown = await answer.json();
    const beside = (filename) => loaded({ ...file, filename });
    const [sheets, pictures] = await Promise.all(
        [shown.sheets, shown.pictures].map((names) => Promise.all(names.map(beside))));
    return { ...shown, sheets, pictures };
}

/** The panel of one node. */
class Scrubber {
    constructor(node) {
        this.node = node;
        this.phrase = this.row = this.image = 0;
        this.canvas = element("canvas", { className: "compinv-map" });
        this.label = element("output", {});
        this.phrases = element("div", { className: "compinv-phrases", role: "group", ariaLabel: "Phrase" });
        this.slider = element("input", { type: "range", min: 0, ariaLabel: "Step" });
        this.slider.oninput = () => this.choose({ row: Number(this.slider.value) });
        this.images = element("select", { ariaLabel: "Image of the batch" });
        this.images.onchange = () => this.choose({ image: Number(this.images.value) });
        this.charts = element("div", {});
        this.element = element("div", { className: "compinv-attention" });
        // Dragging here moves the slider, not the node; its keys are not the graph's.
        for (const event of ["pointerdown", "keydown"]) this.element.addEventListener(event, (e) => e.stopPropagation());
        this.element.addEventListener("keydown", (event) => {
            const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
            if (!way || !this.shown || event.target.tagName === "SELECT") return;
            event.preventDefault();
            this.choose({ row: this.row + way });
        });
        panel(node, "attention", this.element, () => this.height ?? 40);
    }

    async show(file) {
        const name = file?.filename;
        if (!name || name === this.name) return;
        this.name = name;
        try {
            const shown = await fetched(file);
            if (name !== this.name) return;
            this.shown = shown;
            this.build();
        } catch (error) {
            if (name !== this.name) return;
            this.name = this.shown = null;
            this.element.replaceChildren(element("p", { role: "status" }, error.message));
            this.height = 48;
        }
        grow(this.node);
    }

    build() {
        const { phrases, colours, steps, images, aspect, curves } = this.shown;
        this.slider.max = steps.length - 1;
        this.phrases.replaceChildren(...phrases.map((phrase, index) => {
            const button = element("button", { type: "button", title: phrase }, phrase);
            button.style.borderColor = colours[index];
            button.onclick = () => this.choose({ phrase: index });
            return button;
        }));
        this.images.replaceChildren(...Array.from({ length: images }, (_, index) =>
            element("option", { value: index }, `image ${index + 1}`)));
        this.images.hidden = images < 2;
        this.canvas.width = Math.round(SIDE * Math.min(1, aspect));
        this.canvas.height = Math.round(SIDE / Math.max(1, aspect));
        this.element.replaceChildren(
            this.canvas, this.phrases, element("div", { className: "compinv-steps" }, this.slider, this.label, this.images),
            this.charts);
        this.height = this.canvas.height + 112 + curves.length * (CHART.height + 4);
        this.choose({ phrase: Math.min(this.phrase, phrases.length - 1), image: Math.min(this.image, images - 1) });
    }

    choose(chosen) {
        Object.assign(this, chosen);
        const { steps, total } = this.shown;
        this.row = Math.max(0, Math.min(this.row, steps.length - 1));
        this.slider.value = this.row;
        this.images.value = this.image;
        this.label.textContent = `step ${steps[this.row]} of 0 to ${total - 1}`;
        [...this.phrases.children].forEach((button, index) => (button.ariaPressed = index === this.phrase));
        this.drawMap();
        this.charts.replaceChildren(...this.shown.curves.map((curve) => this.chart(curve)));
    }

    drawMap() {
        const { sheets, pictures, cell, boxes, colours } = this.shown;
        const { width, height } = this.canvas;
        const pen = this.canvas.getContext("2d");
        const picture = pictures[this.image];
        pen.clearRect(0, 0, width, height);
        if (picture) pen.drawImage(picture, 0, 0, width, height);
        pen.globalAlpha = picture ? OVER_PICTURE : 1;
        const [rows, columns] = cell;
        pen.drawImage(
            sheets[this.phrase], this.image * columns, this.row * rows, columns, rows, 0, 0, width, height);
        boxes.forEach((box, index) => {
            if (!box) return;
            const [x0, y0, x1, y1] = box;
            pen.globalAlpha = index === this.phrase ? 1 : 0.5;
            pen.lineWidth = index === this.phrase ? 3 : 1.5;
            pen.strokeStyle = colours[index];
            pen.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
        });
        pen.globalAlpha = 1;
    }

    chart({ title, range: [low, high], lines }) {
        const { width, height, left, top, bottom } = CHART;
        const { steps, measured, total } = this.shown;
        const across = (step) => left + ((width - 2 * left) * step) / Math.max(1, total - 1);
        const up = (value) => height - bottom - ((height - top - bottom) * (value - low)) / (high - low);
        const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
        chart.append(svg("text", { x: left, y: 10 }, title), svg("line", {
            class: "compinv-now", x1: across(steps[this.row]), x2: across(steps[this.row]), y1: top, y2: height - bottom,
        }));
        for (const { name, colour, dashed, values } of lines) {
            let path = "", pen = "M";
            values[this.image].forEach((value, index) => {
                if (value !== null) path += `${pen}${across(measured[index]).toFixed(1)} ${up(value).toFixed(1)}`;
                pen = value === null ? "M" : "L";
            });
            const tip = svg("title", {}, dashed ? `${name}, before guidance` : name);
            chart.append(svg("path", { d: path, stroke: colour, "stroke-dasharray": dashed ? "3 3" : "none" }, tip));
        }
        return chart;
    }
}

extend("CompInvShowAttention", {
    output(node, told) {
        if (!told?.attention?.length) return;
        node.compinvScrubber ??= new Scrubber(node);
        node.compinvScrubber.show(told.attention[0]);
    },
});
