"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const { size, columns } = data;
  // Where the page can decode, any latents may be away from the image's own codes; elsewhere one at a time.
  const decode = data.decoder && makeDecoder(data.decoder);
  const byId = (id) => document.getElementById(id);
  const radios = [...document.querySelectorAll(".thumbnails input")];
  const latents = new Map(
    [...document.querySelectorAll(".latent")].map((element) => [
      Number(element.dataset.latent),
      {
        element,
        factor: element.dataset.factor,
        input: element.querySelector("input"),
        output: element.querySelector("output"),
        strip: element.querySelector("canvas"),
      },
    ]),
  );
  const strength = (levels) => (levels / 255) ** 0.7; // of the colour of a difference; small ones show too
  const sheets = [];
  let image = 0; // which of the base images
  let steps = []; // of each latent, by its number
  let last = null; // the latent that was moved last
  let waiting = []; // the pictures of strips that are still to be decoded: [latent, step]
  let timer = null;

  byId("explorer").style.setProperty("--columns", columns);
  for (const id of ["original", "reconstruction", "changed", "difference"]) {
    byId(id).width = byId(id).height = size;
  }

  // The scale's ramp is as strong as its place; so each number stands at its strength.
  for (const levels of [0, 16, 64, 128, 255]) {
    const tick = document.createElement("span");
    tick.textContent = levels;
    tick.style.left = `${100 * strength(levels)}%`;
    byId("scale").append(tick);
  }

  async function sheetOf(number) {
    if (!sheets[number]) {
      sheets[number] = new Image();
      sheets[number].src = data.bases[number].sheet;
    }
    await sheets[number].decode();
    return sheets[number];
  }

  function contextOf(canvas) {
    return canvas.getContext("2d", { willReadFrequently: true });
  }

  function draw(id, source, x, y) {
    contextOf(byId(id)).drawImage(source, x, y, size, size, 0, 0, size, size);
  }

  function pixels(id) {
    return contextOf(byId(id)).getImageData(0, 0, size, size);
  }

  // The picture of steps of all latents. Black is -1/2 and white 1/2.
  function decoded(steps) {
    const values = decode(steps.flatMap((step, latent) => data.bases[image].values[latent][step]));
    const picture = new ImageData(size, size);
    const area = size * size;
    const grey = values.length === area;
    for (let at = 0; at < area; at++) {
      for (let channel = 0; channel < 3; channel++) {
        // The array clips what is out of range.
        picture.data[4 * at + channel] = Math.round((values[grey ? at : channel * area + at] + 0.5) * 255);
      }
      picture.data[4 * at + 3] = 255;
    }
    return picture;
  }

  // Draw steps of which, without a decoder, one alone may be moved: that latent's row of the sheet has it.
  function drawSteps(id, steps, latent) {
    if (decode) contextOf(byId(id)).putImageData(decoded(steps), 0, 0);
    else draw(id, sheets[image], steps[latent] * size, latent * size);
  }

  // The accent colour, the less transparent the more a pixel's channels have moved.
  function drawDifference() {
    const context = contextOf(byId("difference"));
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
      result.data[at + 3] = 255 * strength(most);
    }
    context.putImageData(result, 0, 0);
  }

  // Decode the strips' pictures a few at a time, so that sliders go on moving meanwhile.
  function drawStrips(except) {
    if (!decode) return;
    waiting = data.order
      .filter((latent) => latent !== except || waiting.some(([other]) => other === latent))
      .flatMap((latent) => data.bases[image].texts[latent].map((_, step) => [latent, step]));
    document.documentElement.dataset.strips = "waiting";
    timer ??= setTimeout(drawSomeStrips);
  }

  function drawSomeStrips() {
    const end = performance.now() + 12;
    while (waiting.length && performance.now() < end) {
      const [latent, step] = waiting.shift();
      contextOf(latents.get(latent).strip).putImageData(decoded(steps.map((own, other) => (other === latent ? step : own))), step * size, 0);
    }
    timer = waiting.length ? setTimeout(drawSomeStrips) : null;
    if (!timer) document.documentElement.dataset.strips = "drawn";
  }

  function place(latent, step) {
    const { element, input, output } = latents.get(latent);
    const { texts, own } = data.bases[image];
    const text = texts[latent][step];
    const away = step !== own[latent];
    steps[latent] = step;
    input.value = step;
    output.textContent = text;
    element.classList.toggle("moved", away);
    const remark = away ? `the image's own is ${texts[latent][own[latent]]}` : "the image's own";
    input.setAttribute("aria-valuetext", `${text}, ${remark}`);
  }

  function movedLatents() {
    return data.order.filter((latent) => steps[latent] !== data.bases[image].own[latent]);
  }

  function describe(latent) {
    const { texts, own } = data.bases[image];
    const { factor } = latents.get(latent);
    const name = factor ? `${latent} (${factor})` : String(latent);
    return `Latent ${name}: ${texts[latent][own[latent]]} → ${texts[latent][steps[latent]]}`;
  }

  function move(latent, step) {
    if (!decode) for (const other of movedLatents()) if (other !== latent) place(other, data.bases[image].own[other]);
    place(latent, step);
    last = latent;
    drawSteps("changed", steps, latent);
    drawDifference();
    drawStrips(latent);
    const moved = movedLatents();
    byId("reset").disabled = !moved.length;
    byId("status").textContent =
      moved.length === 0
        ? "No latent moved."
        : moved.length === 1
          ? describe(moved[0])
          : `${moved.length} latents moved: ${moved.join(", ")}. ` + (moved.includes(latent) ? describe(latent) : "");
  }

  function reset() {
    const { own } = data.bases[image];
    for (const latent of latents.keys()) place(latent, own[latent]);
    move(last, own[last]);
  }

  async function show(number) {
    const sheet = decode ? null : await sheetOf(number);
    // Another image may have been picked while this one was being decoded.
    if (Number(radios.find((radio) => radio.checked).value) !== number) return;
    image = number;
    const { texts, own } = data.bases[image];
    for (const [latent, { element, input, strip }] of latents) {
      const count = texts[latent].length;
      element.style.setProperty("--own", own[latent]);
      element.style.setProperty("--steps", count);
      input.max = count - 1;
      strip.width = count * size;
      strip.height = size;
      if (sheet) contextOf(strip).drawImage(sheet, 0, latent * size, count * size, size, 0, 0, count * size, size);
    }
    last = data.order[0];
    draw("original", radios[image].parentElement.querySelector("img"), 0, 0);
    drawSteps("reconstruction", own, last);
    waiting = [];
    for (const latent of latents.keys()) place(latent, own[latent]);
    move(last, own[last]);
    drawStrips(null);
    document.documentElement.dataset.shown = String(image);
  }

  for (const [latent, { input, strip }] of latents) {
    input.addEventListener("input", () => move(latent, Number(input.value)));
    strip.addEventListener("click", (event) => {
      if (input.disabled) return;
      const box = strip.getBoundingClientRect();
      const count = data.bases[image].texts[latent].length;
      const step = Math.floor(((event.clientX - box.left) / box.width) * count);
      input.focus({ preventScroll: true });
      move(latent, Math.min(Math.max(step, 0), count - 1));
    });
  }
  for (const radio of radios) radio.addEventListener("change", () => show(Number(radio.value)));
  byId("reset").addEventListener("click", () => {
    reset();
    drawStrips(null);
    latents.get(last).input.focus({ preventScroll: true });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawDifference);

  // A page that is reloaded may have another radio button checked than the file says.
  show(Number(radios.find((radio) => radio.checked).value));
}
