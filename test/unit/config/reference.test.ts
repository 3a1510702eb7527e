import { expect, test } from "vitest";
import { renderReference } from "../../../src/config/reference.ts";
import { OPTIONS } from "../../../src/config/schema.ts";

test("each option is a row of four cells", () => {
  const [, , ...rows] = renderReference().trimEnd().split("\n");
  expect(rows).toHaveLength(OPTIONS.length);
  for (const row of rows) expect(row).toMatch(/^\| `[a-z.-]+` \| [^|]+ \| [^|]+ \| [^|]+ \|$/);
});

test("what a row looks like", () => {
  const text = renderReference();
  expect(text).toContain(
    "| `data.retention` | duration | `10m` | How long transaction files are kept for replicas that were away. |",
  );
  expect(text).toContain("| `lease.type` | `static`, `consul`, `etcd` | none | Required. ");
  expect(text).toContain("| `exit-on-error` | true or false | `true` | ");
});
