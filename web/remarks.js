// What a node has to remark, as lines on the node: said while it runs, and there again after a reload.

import { ALL, dropPanel, element, extend, grow, isOurs, listen, nodeOf, openWorkflow, panel } from "./frontend.js";

const SIGNS = { warning: "⚠", note: "ℹ" };
const LINE = 16, LETTER = 6.6;

/** Show remarks, [sentence, severity] each, in place of those before; without any the node is as it was. */
function show(node, remarks) {
    const known = node.compinvRemarks;
    if (JSON.stringify(known) === JSON.stringify(remarks) || (!known && !remarks.length)) return;
    node.compinvRemarks = remarks;
    dropPanel(node, "remarks");
    if (node.compinvGrown) node.setSize([node.size[0], node.size[1] - node.compinvGrown]);
    node.compinvGrown = 0;
    if (!remarks.length) return;
    const lines = remarks.map(([sentence, severity]) =>
        element("div", { className: `compinv-${severity}` }, `${SIGNS[severity]} ${sentence}`));
    const letters = () => Math.max(20, (node.size[0] - 40) / LETTER);
    const height = () => 16 + LINE * remarks.reduce((sum, [text]) => sum + Math.ceil((text.length + 2) / letters()), 0);
    panel(node, "remarks", element("div", { className: "compinv-remarks", role: "status" }, ...lines), height);
    node.compinvGrown = grow(node);
}

extend(ALL, { output: (node, told) => told?.remarks && show(node, told.remarks.flat()) });

listen("compinv.remarks", ({ workflow, node: id, remarks }) => {
    // A person may have another workflow open meanwhile, with another node of this number.
    if (workflow && workflow !== openWorkflow()) return;
    const node = nodeOf(id);
    if (isOurs(node)) show(node, remarks);
});
