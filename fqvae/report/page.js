"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const { size, columns } = data;
  const byId = (id) => document.getElementById(id);
  const radios = [...document.querySelectorAll(".thumbnails input")];
  const latents = new Map(
    [...document.querySelectorAll(".latent")].map((element) => [
      Number(element.dataset.latent),
      {
        element,
        name: element.querySelector("b").textContent,
        input: element.querySelector("input"),
        output: element.querySelector("output"),
        strip: element.querySelector("canvas"),
      },
    ]),
  );
  const sheets = [];
  let image = 0; // which of the base images
  let moved = null; // the latent whose slider is away from the image's own code

  byId("explorer").style.setProperty("--columns", columns);
  for (const id of ["original", "reconstruction", "changed", "difference"]) {
    byId(id).width = byId(id).height = size;
  }

  async function sheetOf(number) {
    if (!sheets[number]) {
      sheets[number] = new Image();
      sheets[number].src = data.bases[number].sheet;
    }
    await sheets[number].decode();
    return sheets[number];
  }

  function draw(id, source, x, y) {
    byId(id).getContext("2d", { willReadFrequently: true }).drawImage(source, x, y, size, size, 0, 0, size, size);
  }

  function pixels(id) {
    return byId(id).getContext("2d", { willReadFrequently: true }).getImageData(0, 0, size, size);
  }

  // The accent colour, the less transparent the more a pixel's channels have moved.
  function drawDifference() {
    const context = byId("difference").getContext("2d", { willReadFrequently: true });
    context.clearRect(0, 0, size, size);
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    context.fillRect(0, 0, size, size);
    const result = context.getImageData(0, 0, size, size);
    const before = pixels("reconstruction").data;
    const after = pixels("changed").data;
    for (let at = 0; at < before.length; at += 4) {
      let most = 0;
      for (let channel = at; channel < at + 3; channel++) {
        most = Math.max(most, Math.abs(after[channel] - before[channel]));
      }
      result.data[at + 3] = 255 * (most / 255) ** 0.7; // so that small changes show too
    }
    context.putImageData(result, 0, 0);
  }

  function place(latent, step) {
    const { element, input, output } = latents.get(latent);
    const { texts, own } = data.bases[image];
    const text = texts[latent][step];
    const away = step !== own[latent];
    input.value = step;
    output.textContent = text;
    element.classList.toggle("moved", away);
    const remark = away ? `the image's own is ${texts[latent][own[latent]]}` : "the image's own";
    input.setAttribute("aria-valuetext", `${text}, ${remark}`);
  }

  function move(latent, step) {
    const { texts, own } = data.bases[image];
    if (moved !== null && moved !== latent) place(moved, own[moved]);
    place(latent, step);
    moved = step === own[latent] ? null : latent;
    draw("changed", sheets[image], step * size, latent * size);
    drawDifference();
    byId("reset").disabled = moved === null;
    byId("status").textContent =
      moved === null
        ? "No latent moved."
        : `Latent ${latent} (${latents.get(latent).name}): ${texts[latent][own[latent]]} → ${texts[latent][step]}`;
  }

  async function show(number) {
    const sheet = await sheetOf(number);
    // Another image may have been picked while this one was being decoded.
    if (Number(radios.find((radio) => radio.checked).value) !== number) return;
    image = number;
    moved = null;
    const { texts, own } = data.bases[image];
    for (const [latent, { element, input, strip }] of latents) {
      const steps = texts[latent].length;
      element.style.setProperty("--own", own[latent]);
      input.max = steps - 1;
      strip.width = steps * size;
      strip.height = size;
      strip.getContext("2d").drawImage(sheet, 0, latent * size, steps * size, size, 0, 0, steps * size, size);
      place(latent, own[latent]);
    }
    const first = data.order[0];
    draw("original", radios[image].parentElement.querySelector("img"), 0, 0);
    draw("reconstruction", sheet, own[first] * size, first * size);
    move(first, own[first]);
    document.documentElement.dataset.shown = String(image);
  }

  for (const [latent, { input, strip }] of latents) {
    input.addEventListener("input", () => move(latent, Number(input.value)));
    strip.addEventListener("click", (event) => {
      if (input.disabled) return;
      const box = strip.getBoundingClientRect();
      const steps = data.bases[image].texts[latent].length;
      const step = Math.floor(((event.clientX - box.left) / box.width) * steps);
      input.focus({ preventScroll: true });
      move(latent, Math.min(Math.max(step, 0), steps - 1));
    });
  }
  for (const radio of radios) radio.addEventListener("change", () => show(Number(radio.value)));
  byId("reset").addEventListener("click", () => {
    const latent = moved;
    move(latent, data.bases[image].own[latent]);
    latents.get(latent).input.focus({ preventScroll: true });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawDifference);

  // A page that is reloaded may have another radio button checked than the file says.
  show(Number(radios.find((radio) => radio.checked).value));
}
