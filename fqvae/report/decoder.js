// A decoder: linear layers, then transposed 4x4 convolutions of stride 2 and padding 1.
// As fqvae/report/decoder.py describes it; returns a function from an array of inputs to an array of numbers in the
// order channel, row, column.
function makeDecoder({ layers, weights, bits }) {
  const numbers = unpack(weights, bits);
  let start = 0;
  const take = (count) => numbers.subarray(start, (start += count));
  const steps = layers.map(({ kind, inputs, outputs, size, relu }) => {
    const weight = take(inputs * outputs * (kind === "linear" ? 1 : 16));
    const bias = take(outputs);
    const result = new Float64Array(kind === "linear" ? outputs : outputs * 4 * size * size);
    return (values) => {
      if (kind === "linear") linear(values, weight, bias, result);
      else convolve(values, weight, bias, result, inputs, outputs, size);
      if (relu) for (let at = 0; at < result.length; at++) if (result[at] < 0) result[at] = 0;
      return result;
    };
  });
  return (inputs) => steps.reduce((values, step) => step(values), inputs);

  // weight: (outputs, inputs).
  function linear(values, weight, bias, result) {
    let at = 0;
    for (let output = 0; output < result.length; output++) {
      let sum = bias[output];
      for (let input = 0; input < values.length; input++) sum += weight[at++] * values[input];
      result[output] = sum;
    }
  }

  // weight: (inputs, outputs, 4, 4). Input (y, x) reaches the outputs (2 y + row - 1, 2 x + column - 1).
  function convolve(values, weight, bias, result, inputs, outputs, size) {
    const width = 2 * size;
    const area = width * width;
    for (let output = 0; output < outputs; output++) result.fill(bias[output], output * area, (output + 1) * area);
    for (let input = 0; input < inputs; input++) {
      for (let output = 0; output < outputs; output++) {
        const kernel = (input * outputs + output) * 16;
        for (let row = 0; row < 4; row++) {
          const firstY = row === 0 ? 1 : 0;
          const lastY = row === 3 ? size - 1 : size;
          for (let column = 0; column < 4; column++) {
            const factor = weight[kernel + 4 * row + column];
            const firstX = column === 0 ? 1 : 0;
            const lastX = column === 3 ? size - 1 : size;
            for (let y = firstY; y < lastY; y++) {
              const from = (input * size + y) * size;
              const to = output * area + (2 * y + row - 1) * width + column - 1;
              for (let x = firstX; x < lastX; x++) result[to + 2 * x] += factor * values[from + x];
            }
          }
        }
      }
    }
  }

  // Little-endian numbers of 16 or 32 bits, in base64.
  function unpack(text, bits) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const count = bytes.length / (bits / 8);
    const result = new Float64Array(count);
    for (let at = 0; at < count; at++) {
      result[at] = bits === 32 ? view.getFloat32(4 * at, true) : half(view.getUint16(2 * at, true));
    }
    return result;
  }

  // A number of IEEE 754's half precision: 1 bit for the sign, 5 for the exponent, 10 for the fraction.
  function half(word) {
    const exponent = (word >> 10) & 31;
    const fraction = word & 1023;
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    return word >> 15 ? -size : size;
  }
}
