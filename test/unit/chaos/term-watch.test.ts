import { expect, test } from "vitest";
import { TermWatch } from "../../integration/chaos/term-watch.ts";

test("a term is no longer than what was seen of it", async () => {
  let nowUs = 0;
  const answers: (string | Error | undefined)[] = [
    "a",
    "a",
    new Error("paused"),
    "a",
    undefined,
    "b",
    "b",
  ];
  const watch = new TermWatch(
    async () => {
      nowUs += 5;
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return answer;
    },
    () => nowUs,
  );
  while (answers.length > 0) {
    await watch.look();
    nowUs += 5;
  }
  // Questions are sent at 0, 10, 20 …, and answered 5 later.
  expect(watch.terms).toEqual([
    { holder: "a", fromUs: 5, toUs: 30 },
    { holder: "b", fromUs: 55, toUs: 60 },
  ]);
});
