// The page “Record”: a name, Start, Stop, download; by the best way there is.

import { openStudio } from "./studio.js";
import { byId, nameProblem, tell } from "./ui.js";

const name = byId("name", HTMLInputElement);
const query = new URLSearchParams(location.search);
const mode = /** @type {"auto"} */ (query.get("mode") ?? "auto"); // the library refuses what it doesn't know

name.value = query.get("name") ?? `stream-${Math.random().toString(36).slice(2, 6)}`;

await openStudio({
  fields: [name],
  options() {
    const problem = nameProblem(name.value);
    tell(byId("name-problem", HTMLElement), problem);
    if (problem) name.focus();
    return problem ? null : { name: name.value, mode };
  },
}, false);
