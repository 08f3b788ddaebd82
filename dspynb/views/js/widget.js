/* The entry point for anywidget: one store for each widget, and a view in each output that shows the widget. */

/** @import { Received, Snapshot, WidgetModel } from "./types.js" */

import { RunStore } from "./store.js";
import { createView } from "./view.js";

export default () => {
  /** @type {RunStore} */
  let store;
  return {
    /** @param {{ model: WidgetModel }} context */
    initialize({ model }) {
      store = new RunStore({ send: (message) => model.send(message) });
      const applySnapshot = () => store.applySnapshot(/** @type {Partial<Snapshot>} */ (model.get("snapshot") ?? {}));
      /** @type {(message: Received) => void} */
      const receive = (message) => store.receive(message);
      model.on("change:snapshot", applySnapshot);
      model.on("msg:custom", receive);
      applySnapshot();
      return () => {
        model.off("change:snapshot", applySnapshot);
        model.off("msg:custom", receive);
        store.views.clear();
      };
    },
    /** @param {{ el: HTMLElement }} context */
    render({ el }) {
      el.classList.add("dspynb");
      store.sendAlive();
      return createView(store, el);
    },
  };
};
