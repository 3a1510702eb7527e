import { expect, test } from "vitest";
import { SpinWindow } from "../../../src/fuse/spin-window.ts";

test("does not spin before requests have followed each other closely", () => {
  const window = new SpinWindow(0.1);
  expect(window.ms).toBe(0);
  window.missed(5_000);
  expect(window.ms).toBe(0);
  window.missed(0.05);
  expect(window.ms).toBe(0.1);
});

test("spins less each time that nothing comes, and soon not at all", () => {
  const window = new SpinWindow(0.1);
  window.missed(0.05);
  const spent: number[] = [];
  while (window.ms > 0) {
    spent.push(window.ms);
    window.missed(1);
  }
  expect(spent).toEqual([0.1, 0.05, 0.025, 0.0125, 0.00625]);
});

test("spins in full again as soon as a request comes that a spin would have met", () => {
  const window = new SpinWindow(0.1);
  window.missed(0.05);
  window.missed(1);
  window.missed(0.09);
  expect(window.ms).toBe(0.1);
});

test("a maximum of 0 turns it off", () => {
  const window = new SpinWindow(0);
  window.missed(0);
  expect(window.ms).toBe(0);
});
