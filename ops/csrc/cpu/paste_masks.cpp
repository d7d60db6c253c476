#include "cpu.h"

#include "../paste_masks.h"

#include <algorithm>
#include <string>
#include <vector>

// Shape letters: N masks, h x w probabilities of a mask, H x W pixels of the image.
//
// A pixel is set where its bilinear sample reaches the threshold. Only pixels within half a mask cell of the box can
// be: outside, samples are 0, and the threshold is above that. The order of the operations is that of grid_sample.

namespace sdk {
namespace {

// Where pixel centres of one axis fall between the cells of a mask that has a cell of zeros on both sides.
template <typename W>
struct Axis {
  int64_t begin = 0, end = 0;  // pixels that can be set
  std::vector<int32_t> cell;   // of each such pixel the lower cell, 0 being the zeros before the first
  std::vector<W> after, before;  // weights of the higher and of the lower cell

  void place(W low, W high, int64_t cells, int64_t pixels) {
    begin = end = 0;
    cell.clear();
    after.clear();
    before.clear();
    if (high < low) {
      return;
    }
    const W limit = static_cast<W>(pixels);
    if (high == low) {
      // A box without extent is pasted on the pixels around it, with the middle of the mask.
      begin = static_cast<int64_t>(std::clamp(std::floor(low) - W(1), W(0), limit));
      end = static_cast<int64_t>(std::clamp(std::ceil(high) + W(1), W(0), limit));
      const W middle = static_cast<W>(cells) / W(2) - W(0.5);
      const W floor = std::floor(middle);
      cell.assign(end - begin, static_cast<int32_t>(floor) + 1);
      after.assign(end - begin, middle - floor);
      before.assign(end - begin, W(1) - (middle - floor));
      return;
    }
    // One pixel more than needed on both sides; those turn out as zeros.
    const W margin = (high - low) / static_cast<W>(2 * cells) + W(1.5);
    begin = static_cast<int64_t>(std::clamp(std::floor(low - margin), W(0), limit));
    end = static_cast<int64_t>(std::clamp(std::ceil(high + margin), W(0), limit));
    const W scale = static_cast<W>(cells) / W(2);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const W normal = (static_cast<W>(pixel) + W(0.5) - low) / (high - low) * W(2) - W(1);
      const W position = (normal + W(1)) * scale - W(0.5);
      const W floor = std::floor(position);
      const bool near = floor >= W(-1) && floor < static_cast<W>(cells);
      const W fraction = position - floor;
      cell.push_back(near ? static_cast<int32_t>(floor) + 1 : static_cast<int32_t>(cells));
      after.push_back(near ? fraction : W(0));
      before.push_back(near ? W(1) - fraction : W(0));
    }
  }
};

// One box being pasted, column by column, as COCO run lengths go.
template <typename W>
struct Paste {
  Axis<W> x, y;
  std::vector<W> columns;  // of the mask: (w + 2, h + 2), with zeros around
  std::vector<uint8_t> set;  // of the column at hand, for pixels y.begin to y.end
  int64_t stride = 0;

  template <typename T>
  void start(const T* mask, const T* box, int64_t cells_y, int64_t cells_x, int64_t height, int64_t width) {
    x.place(static_cast<W>(box[0]), static_cast<W>(box[2]), cells_x, width);
    y.place(static_cast<W>(box[1]), static_cast<W>(box[3]), cells_y, height);
    stride = cells_y + 2;
    columns.assign((cells_x + 2) * stride, W(0));
    for (int64_t row = 0; row < cells_y; ++row) {
      for (int64_t column = 0; column < cells_x; ++column) {
        columns[(column + 1) * stride + row + 1] = static_cast<W>(mask[row * cells_x + column]);
      }
    }
    set.resize(y.end - y.begin);
  }

  void fill_column(int64_t pixel, W threshold) {
    const int64_t at = pixel - x.begin;
    const W* left = columns.data() + x.cell[at] * stride;
    fill(left, left + stride, x.before[at], x.after[at], threshold);
  }

 private:
  void fill(const W* left, const W* right, W east, W west, W threshold) {
    fill_set(
        left, right, y.cell.data(), y.before.data(), y.after.data(), east, west, threshold, set.data(), set.size());
  }

  SDK_SIMD static void fill_set(
      const W* __restrict left,
      const W* __restrict right,
      const int32_t* __restrict cell,
      const W* __restrict south,
      const W* __restrict north,
      W east,
      W west,
      W threshold,
      uint8_t* __restrict out,
      size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const int32_t at = cell[i];
      const W value = left[at] * (east * south[i]) + right[at] * (west * south[i]) + left[at + 1] * (east * north[i]) +
          right[at + 1] * (west * north[i]);
      out[i] = value >= threshold ? 1 : 0;
    }
  }
};

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_paste_arguments(masks, boxes, height, width, threshold);
  const int64_t count = masks.size(0), cells_y = masks.size(1), cells_x = masks.size(2);
  const Tensor masks_in = packed(masks), boxes_in = packed(boxes);
  const Tensor out = zeros(masks_in, {count, height, width}, ScalarType::Bool);
  for_floating(masks.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_finite<T>("boxes", boxes_in);
    const T* values = input_data<T>(masks_in);
    const T* corners = input_data<T>(boxes_in);
    bool* result = output_data<bool>(out);
    parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      Paste<W> paste;
      for (int64_t n = begin; n < end; ++n) {
        paste.start(values + n * cells_y * cells_x, corners + 4 * n, cells_y, cells_x, height, width);
        bool* canvas = result + n * height * width;
        for (int64_t x = paste.x.begin; x < paste.x.end; ++x) {
          paste.fill_column(x, static_cast<W>(threshold));
          for (int64_t y = paste.y.begin; y < paste.y.end; ++y) {
            canvas[y * width + x] = paste.set[y - paste.y.begin] != 0;
          }
        }
      }
    });
  });
  return out;
}

// Run lengths over the columns of an image, the first of zeros.
class Runs {
 public:
  void add(bool value, int64_t length) {
    if (value == current_) {
      length_ += length;
    } else if (length > 0) {
      lengths_.push_back(length_);
      current_ = value;
      length_ = length;
    }
  }

  // COCO's text: differences to the run before last (from the fourth on), 5 bits a character, lowest first, the sixth
  // bit telling that more follow, all plus 48.
  std::string text() {
    lengths_.push_back(length_);
    std::string out;
    for (size_t i = 0; i < lengths_.size(); ++i) {
      int64_t rest = i > 2 ? lengths_[i] - lengths_[i - 2] : lengths_[i];
      bool more = true;
      while (more) {
        int64_t character = rest & 31;
        rest >>= 5;
        more = (character & 16) ? rest != -1 : rest != 0;
        out.push_back(static_cast<char>((more ? character | 32 : character) + 48));
      }
    }
    return out;
  }

 private:
  std::vector<int64_t> lengths_;
  int64_t length_ = 0;
  bool current_ = false;
};

// The texts of all masks one after another, and the length of each.
std::tuple<Tensor, Tensor> paste_and_encode(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_paste_arguments(masks, boxes, height, width, threshold);
  const int64_t count = masks.size(0), cells_y = masks.size(1), cells_x = masks.size(2);
  const Tensor masks_in = packed(masks), boxes_in = packed(boxes);
  std::vector<std::string> texts(count);
  for_floating(masks.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_finite<T>("boxes", boxes_in);
    const T* values = input_data<T>(masks_in);
    const T* corners = input_data<T>(boxes_in);
    parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      Paste<W> paste;
      for (int64_t n = begin; n < end; ++n) {
        paste.start(values + n * cells_y * cells_x, corners + 4 * n, cells_y, cells_x, height, width);
        Runs runs;
        runs.add(false, paste.x.begin * height);
        for (int64_t x = paste.x.begin; x < paste.x.end; ++x) {
          paste.fill_column(x, static_cast<W>(threshold));
          runs.add(false, paste.y.begin);
          for (uint8_t value : paste.set) {
            runs.add(value != 0, 1);
          }
          runs.add(false, height - paste.y.end);
        }
        runs.add(false, (width - paste.x.end) * height);
        texts[n] = runs.text();
      }
    });
  });
  int64_t total = 0;
  for (const std::string& text : texts) {
    total += static_cast<int64_t>(text.size());
  }
  const Tensor counts = empty(masks_in, {total}, ScalarType::Byte);
  const Tensor lengths = empty(masks_in, {count}, ScalarType::Long);
  uint8_t* place = output_data<uint8_t>(counts);
  for (int64_t n = 0; n < count; ++n) {
    place = std::copy(texts[n].begin(), texts[n].end(), place);
    output_data<int64_t>(lengths)[n] = static_cast<int64_t>(texts[n].size());
  }
  return {counts, lengths};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("paste_masks", TORCH_BOX(&sdk::paste_masks));
  m.impl("paste_and_encode", TORCH_BOX(&sdk::paste_and_encode));
}
