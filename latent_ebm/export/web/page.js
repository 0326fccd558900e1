// Draws pictures for prompts in the browser. All that it loads lies beside it.
import * as ort from "./ort/ort.wasm.bundle.min.mjs";

const START = 1n, FIRST_WORD = 3; // token ids; 0 is padding
const element = (id) => document.getElementById(id);

// Tokens: the rule of latent_ebm.text.WordTokenizer.

/** The lower-case form of one character, as Python's str.casefold gives it. */
function fold(character) {
  if (/\p{Script=Cherokee}/u.test(character)) return character.toUpperCase();
  if (character === "ı") return character;
  return character.toLowerCase().toUpperCase().toLowerCase(); // the way over "SS" makes ß ss
}

/** One character as it enters a line of words between spaces. */
function spaced(character) {
  if (/[\p{Cf}\ufe00-\ufe0f]/u.test(character)) return "";
  if (/[\p{L}\p{M}\p{N}]/u.test(character)) return character;
  return /[\p{P}\p{Z}\p{C}]/u.test(character) ? " " : ` ${character} `;
}

/** The words of a text in normal form. */
export function splitWords(text) {
  const normal = [...text.normalize("NFKC")].map(fold).join("").normalize("NFKC");
  return [...normal].map(spaced).join("").split(" ").filter(Boolean);
}

/** The token ids of a prompt. Throws an Error for a prompt that the model cannot draw. */
export function tokenize(prompt, vocabulary) {
  if (/(?![\t-\r\x1c-\x1f\x85])[\p{Cc}\p{Cs}]/u.test(prompt)) {
    throw new Error("The prompt must hold no control characters.");
  }
  const words = splitWords(prompt), most = vocabulary.max_words;
  if (words.length > most) {
    throw new Error(`The prompt must have at most ${most} words, but it has ${words.length}.`);
  }
  if (words.length === 0 && /[^\p{Z}\t-\r\x1c-\x1f\x85]/u.test(prompt)) {
    throw new Error("The prompt must hold a word or be empty.");
  }
  const unknown = words.filter((word) => !vocabulary.words.includes(word));
  if (unknown.length > 0) throw new Error(`Words that the model does not know: ${unknown.join(", ")}.`);
  const ids = new BigInt64Array(most + 1);
  ids[0] = START;
  words.forEach((word, i) => (ids[i + 1] = BigInt(FIRST_WORD + vocabulary.words.indexOf(word))));
  return ids;
}

// Noise.

/** Standard normal numbers of a seed: mulberry32 and the transform of Box and Muller. They are not
 * those of PyTorch, so a seed draws another picture here than there. */
function normals(seed, size) {
  let state = seed >>> 0;
  const uniform = () => { // in (0, 1)
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (((x ^ (x >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  const pair = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return Float32Array.from({ length: size }, pair);
}

/** A program that drives this page may put noise of its own in the place of normals. */
export const hooks = { noise: normals };

// Pictures.

const [vocabulary, encoder, drawing] = await Promise.all([
  fetch("vocabulary.json").then((response) => response.json()),
  ort.InferenceSession.create("text.onnx"),
  ort.InferenceSession.create("image.onnx"),
]).catch((error) => {
  say(`The model could not be loaded: ${error.message}`, true);
  throw error;
});

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").classList.toggle("error", isError);
}

/** One picture as a tensor (1, C, H, W) in [-1, 1], for a condition {text, mask}. */
async function draw(condition, seed) {
  const shape = [1, ...drawing.inputMetadata.find(({ name }) => name === "noise").shape.slice(1)];
  const values = hooks.noise(seed, shape.reduce((a, b) => a * b));
  return (await drawing.run({ ...condition, noise: new ort.Tensor("float32", values, shape) })).image;
}

/** The picture (1, C, H, W) on a canvas; C is 1 or 3. */
function show({ data, dims: [, channels, height, width] }, caption) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pixels = new ImageData(width, height), size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = 127.5 * (1 + data[Math.min(c, channels - 1) * size + i]); // rounds
    }
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const figure = document.createElement("figure"), text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(canvas, text);
  element("grid").append(figure);
}

/** Draw what the form asks for. */
async function answer() {
  const number = Number(element("number").value), first = Number(element("seed").value);
  element("grid").replaceChildren();
  const ids = tokenize(element("prompt").value, vocabulary);
  const condition = await encoder.run({ tokens: new ort.Tensor("int64", ids, [1, ids.length]) });
  let total = 0;
  for (let i = 0; i < number; i++) {
    const start = performance.now(), image = await draw(condition, first + i);
    const time = performance.now() - start;
    total += time;
    show(image, `seed ${first + i}, ${time.toFixed(0)} ms`);
    say(`${i + 1} of ${number} pictures, ${(total / (i + 1)).toFixed(0)} ms for each.`);
    await new Promise((resolve) => setTimeout(resolve)); // so that it is seen at once
  }
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("draw").disabled = true;
  try {
    await answer();
  } catch (error) {
    say(error.message, true);
  } finally {
    element("draw").disabled = false;
  }
});
element("words").textContent = vocabulary.words.join(" ");
element("draw").disabled = false;
say("");
