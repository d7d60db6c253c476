// Find objects with an exported file in a browser or in Node, by onnxruntime-web.

/**
 * Objects in an image, best first: label, score and box, [x1, y1, x2, y2] in its pixels.
 *
 * ort: the module onnxruntime-web. session: of an ONNX file that sdk.export wrote. image: an ImageData, or another
 * object with width, height and data, four bytes a pixel. least: the lowest score.
 */
export async function detect(ort, session, image, least = 0.3) {
  const { width, height, data } = image;
  const area = width * height;
  // Resizing and normalization are inside: the file takes (1, 3, H, W) uint8 RGB of any size.
  const planes = new Uint8Array(3 * area);
  for (let pixel = 0; pixel < area; pixel++)
    for (let channel = 0; channel < 3; channel++)
      planes[channel * area + pixel] = data[4 * pixel + channel];
  const images = new ort.Tensor("uint8", planes, [1, 3, height, width]);
  const { boxes, scores, labels, count } = await session.run({ images });
  const found = [];
  // What stands behind the count is padding.
  for (let index = 0; index < Number(count.data[0]) && scores.data[index] >= least; index++)
    found.push({
      label: Number(labels.data[index]),
      score: scores.data[index],
      box: Array.from(boxes.data.slice(4 * index, 4 * index + 4)),
    });
  return found;
}
