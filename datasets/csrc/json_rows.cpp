// Arrays of JSON objects as columns. The objects of an annotation or results file are alike, so that a few fields of each
// are all that is wanted; as Python objects they would take twenty times the time and the memory.
//
// rows(data, place, end, fields) reads objects until the array or the data ends. What it does not expect in a field is no
// error: that object is marked, and Python looks at it. Only what is no JSON is refused, and Python says why.

// Buffers are in the stable interface from Python 3.11 on, which is also the oldest that the package runs on.
#undef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Incomplete {};   // the data ends within a value
struct Malformed {};    // no JSON
struct PythonError {};  // an exception is set

constexpr int kMaxDepth = 200;
constexpr int64_t kMaxWhole = int64_t{1} << 62;
constexpr int64_t kMaxSide = 65535, kMaxPixels = std::numeric_limits<int32_t>::max();

enum class Kind : int { kWhole, kFlag, kNumber, kBox, kText, kMask };
enum MaskKind : uint8_t { kNoMask, kPolygons, kRuns };

// Where a reader stands. At `end` there is a zero, which is no sign of JSON, so that one comparison tells the end.
struct Cursor {
  const char* place;
  const char* end;

  char peek() const {
    if (*place == '\0') stop();
    return *place;
  }
  [[noreturn]] void stop() const {
    if (place == end) throw Incomplete{};
    throw Malformed{};
  }
  char next() {
    const char sign = peek();
    ++place;
    return sign;
  }
  char past_space() {
    while (true) {
      const char sign = peek();
      if (static_cast<unsigned char>(sign) > ' ') return sign;
      if (sign != ' ' && sign != '\n' && sign != '\r' && sign != '\t') throw Malformed{};
      ++place;
    }
  }
  void expect(char wanted) {
    if (past_space() != wanted) throw Malformed{};
    ++place;
  }
  // Whether another element follows in an array or object that `close` ends; passes the sign in between.
  bool another(char close, bool first) {
    const char sign = past_space();
    if (sign == close) {
      ++place;
      return false;
    }
    if (!first) {
      if (sign != ',') throw Malformed{};
      ++place;
      if (past_space() == close) throw Malformed{};
    }
    return true;
  }
  void word(std::string_view text) {
    for (const char letter : text) {
      if (next() != letter) throw Malformed{};
    }
  }
};

struct Text {
  std::string_view raw;  // between the quotation marks
  bool escaped;
};

Text read_text(Cursor& at) {
  if (at.next() != '"') throw Malformed{};
  const char* start = at.place;
  bool escaped = false, ascii = true;
  while (true) {
    const auto sign = static_cast<unsigned char>(at.next());
    if (sign == '"') break;
    if (sign < 0x20) throw Malformed{};
    ascii &= sign < 0x80;
    if (sign != '\\') continue;
    escaped = true;
    const char kind = at.next();
    if (kind == 'u') {
      for (int i = 0; i < 4; ++i) {
        if (!std::strchr("0123456789abcdefABCDEF", at.next())) throw Malformed{};
      }
    } else if (!std::strchr("\"\\/bfnrt", kind)) {
      throw Malformed{};
    }
  }
  const std::string_view raw(start, static_cast<size_t>(at.place - 1 - start));
  if (!ascii) {
    PyObject* decoded = PyUnicode_DecodeUTF8(raw.data(), static_cast<Py_ssize_t>(raw.size()), "strict");
    if (!decoded) {
      PyErr_Clear();
      throw Malformed{};
    }
    Py_DECREF(decoded);
  }
  return {raw, escaped};
}

bool is_digit(char sign) { return sign >= '0' && sign <= '9'; }

struct Number {
  double value;
  int64_t whole;
  bool is_whole;  // neither point nor exponent, and within 62 bits
};

double exact(std::string_view token) {
  double value = 0;
#if defined(__cpp_lib_to_chars)
  const auto done = std::from_chars(token.data(), token.data() + token.size(), value);
  if (done.ec == std::errc()) return value;
#endif
  value = PyOS_string_to_double(std::string(token).c_str(), nullptr, nullptr);
  if (value == -1.0 && PyErr_Occurred()) throw PythonError{};
  return value;
}

// Passes the digits here, behind those of `digits`; their number. From 20 on, the value is meaningless.
std::ptrdiff_t read_digits(Cursor& at, uint64_t& digits) {
  const char* start = at.place;
  while (is_digit(*at.place)) digits = digits * 10 + static_cast<uint64_t>(*at.place++ - '0');
  return at.place - start;
}

Number read_number(Cursor& at) {
  static constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  const char* start = at.place;
  const bool negative = at.peek() == '-';
  if (negative) ++at.place;
  uint64_t digits = 0;
  std::ptrdiff_t after_point = 0;
  bool whole = true;
  const char first = at.peek();
  if (!is_digit(first)) throw Malformed{};
  std::ptrdiff_t count = read_digits(at, digits);
  if (first == '0' && count > 1) throw Malformed{};
  if (at.peek() == '.') {
    whole = false;
    ++at.place;
    after_point = read_digits(at, digits);
    if (!after_point && !is_digit(at.peek())) throw Malformed{};
    count += after_point;
  }
  const bool scaled = at.peek() == 'e' || at.peek() == 'E';
  if (scaled) {
    whole = false;
    ++at.place;
    if (at.peek() == '+' || at.peek() == '-') ++at.place;
    if (!is_digit(at.peek())) throw Malformed{};
    while (is_digit(*at.place)) ++at.place;
    at.peek();
  }
  // Up to 19 digits fit; two numbers that a double holds exactly divide to the nearest double (Clinger, 1990).
  const bool held = count <= 19;
  if (whole && held && digits < static_cast<uint64_t>(kMaxWhole)) {
    const auto value = negative ? -static_cast<int64_t>(digits) : static_cast<int64_t>(digits);
    return {static_cast<double>(value), value, true};
  }
  if (!scaled && held && digits <= (uint64_t{1} << 53) && after_point <= 22) {
    const double value = static_cast<double>(digits) / kPowers[after_point];
    return {negative ? -value : value, 0, false};
  }
  return {exact({start, static_cast<size_t>(at.place - start)}), 0, false};
}

void skip_value(Cursor& at, int depth = 0) {
  if (depth > kMaxDepth) throw Malformed{};
  switch (at.past_space()) {
    case '"':
      read_text(at);
      return;
    case '{':
      ++at.place;
      for (bool first = true; at.another('}', first); first = false) {
        at.past_space();
        read_text(at);
        at.expect(':');
        skip_value(at, depth + 1);
      }
      return;
    case '[':
      ++at.place;
      for (bool first = true; at.another(']', first); first = false) skip_value(at, depth + 1);
      return;
    case 't':
      return at.word("true");
    case 'f':
      return at.word("false");
    case 'n':
      return at.word("null");
    // Python's reader takes these three as well.
    case 'N':
      return at.word("NaN");
    case 'I':
      return at.word("Infinity");
    case '-':
      if (at.place[1] == 'I') return at.word("-Infinity");
      [[fallthrough]];
    default:
      read_number(at);
  }
}

bool is_number(const Cursor& at) {
  const char sign = at.peek();
  if (sign != '-') return is_digit(sign);
  return is_digit(Cursor{at.place + 1, at.end}.peek());
}

// What is expected in a field; false, with the cursor anywhere, where something else stands there.

bool whole_of(Cursor& at, int64_t& value) {
  if (!is_number(at)) return false;
  const Number number = read_number(at);
  value = number.whole;
  return number.is_whole;
}

bool flag_of(Cursor& at, int64_t& value) {
  const char sign = at.peek();
  if (sign == 't' || sign == 'f') {
    value = sign == 't';
    at.word(value ? "true" : "false");
    return true;
  }
  return whole_of(at, value);
}

bool number_of(Cursor& at, double& value) {
  if (!is_number(at)) return false;
  value = read_number(at).value;
  return std::isfinite(value);
}

bool box_of(Cursor& at, double (&edges)[4]) {
  if (at.peek() != '[') return false;
  ++at.place;
  int count = 0;
  while (at.another(']', count == 0)) {
    if (count == 4 || !number_of(at, edges[count])) return false;
    ++count;
  }
  return count == 4;
}

// Compressed run lengths (maskApi of the COCO API): groups of five bits, low first; 0x20 says that more follow, 0x10 of
// the last is the sign; from the fourth on, differences to the one before last. Whether they are well formed and cover
// `pixels`.
bool covers(std::string_view counts, int64_t pixels) {
  int64_t sum = 0, before = 0, last = 0;
  size_t place = 0, number = 0;
  while (place < counts.size()) {
    int64_t value = 0;
    for (int group = 0;; ++group) {
      if (place == counts.size() || group == 7) return false;
      const int code = static_cast<unsigned char>(counts[place++]) - 48;
      if (code < 0 || code > 63) return false;
      value |= static_cast<int64_t>(code & 0x1F) << (5 * group);
      if (code & 0x20) continue;
      if (code & 0x10) value -= int64_t{1} << (5 * (group + 1));
      break;
    }
    if (number >= 3) value += before;
    if (value < 0 || value > pixels) return false;
    sum += value;
    before = last;
    last = value;
    ++number;
  }
  return sum == pixels;
}

template <typename T>
PyObject* as_bytes(const std::vector<T>& values) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(values.data()),
                                   static_cast<Py_ssize_t>(values.size() * sizeof(T)));
}

PyObject* pack(std::initializer_list<PyObject*> parts) {
  PyObject* packed = PyTuple_New(static_cast<Py_ssize_t>(parts.size()));
  Py_ssize_t place = 0;
  for (PyObject* part : parts) {
    if (packed && part && PyTuple_SetItem(packed, place++, part) == 0) continue;
    throw PythonError{};
  }
  return packed;
}

struct Masks {
  std::vector<uint8_t> kinds;
  std::vector<int64_t> polygons;    // of each row
  std::vector<int64_t> points;      // numbers of each polygon
  std::vector<double> coordinates;  // of all polygons
  std::vector<double> extents;      // of each row, smallest x, y and largest x, y of its polygons
  std::vector<int64_t> sizes;       // of each row, height and width of its run lengths
  std::vector<int64_t> lengths;     // of each row, bytes of its run lengths
  std::string runs;

  // Adds a row. Where false, what was added has to be taken back.
  bool add(Cursor& at) {
    double extent[4] = {0, 0, 0, 0};
    int64_t size[2] = {0, 0};
    const size_t first_polygon = points.size(), first_run = runs.size();
    MaskKind kind = kNoMask;
    const char sign = at.peek();
    if (sign == 'n') {
      at.word("null");
    } else if (sign == '[') {
      if (!add_polygons(at, extent)) return false;
      if (points.size() > first_polygon) kind = kPolygons;
    } else if (sign == '{') {
      if (!add_runs(at, size)) return false;
      kind = kRuns;
    } else {
      return false;
    }
    kinds.push_back(kind);
    polygons.push_back(static_cast<int64_t>(points.size() - first_polygon));
    extents.insert(extents.end(), extent, extent + 4);
    sizes.insert(sizes.end(), size, size + 2);
    lengths.push_back(static_cast<int64_t>(runs.size() - first_run));
    return true;
  }

  void add_none() {
    kinds.push_back(kNoMask);
    polygons.push_back(0);
    extents.insert(extents.end(), 4, 0.0);
    sizes.insert(sizes.end(), 2, 0);
    lengths.push_back(0);
  }

  bool add_polygons(Cursor& at, double (&extent)[4]) {
    extent[0] = extent[1] = std::numeric_limits<double>::infinity();
    extent[2] = extent[3] = -extent[0];
    ++at.place;
    for (bool first = true; at.another(']', first); first = false) {
      if (at.peek() != '[') return false;
      ++at.place;
      const size_t start = coordinates.size();
      size_t axis = 0;
      for (bool none = true; at.another(']', none); none = false) {
        double value = 0;
        if (!number_of(at, value)) return false;
        coordinates.push_back(value);
        extent[axis] = std::min(extent[axis], value);
        extent[axis + 2] = std::max(extent[axis + 2], value);
        axis ^= 1;
      }
      const size_t count = coordinates.size() - start;
      if (count < 6 || count % 2) return false;
      points.push_back(static_cast<int64_t>(count));
    }
    return true;
  }

  bool add_runs(Cursor& at, int64_t (&size)[2]) {
    ++at.place;
    bool with_size = false, with_counts = false;
    const size_t start = runs.size();
    for (bool first = true; at.another('}', first); first = false) {
      const Text key = read_text(at);
      at.expect(':');
      at.past_space();
      if (key.raw == "size" && !with_size) {
        if (at.next() != '[' || at.past_space() == ']') return false;
        if (!whole_of(at, size[0]) || !at.another(']', false)) return false;
        if (!whole_of(at, size[1]) || at.another(']', false)) return false;
        with_size = true;
      } else if (key.raw == "counts" && !with_counts) {
        if (at.peek() != '"') return false;
        const Text counts = read_text(at);
        for (size_t i = 0; i < counts.raw.size(); ++i) {
          // A backslash is a sign of the code, and comes as two.
          if (counts.raw[i] == '\\' && counts.raw[++i] != '\\') return false;
          runs.push_back(counts.raw[i]);
        }
        with_counts = true;
      } else {
        return false;
      }
    }
    if (!with_size || !with_counts) return false;
    for (const int64_t side : size) {
      if (side < 1 || side > kMaxSide) return false;
    }
    const int64_t pixels = size[0] * size[1];
    return pixels <= kMaxPixels && covers(std::string_view(runs).substr(start), pixels);
  }

  void cut(size_t rows, size_t polygon_count, size_t coordinate_count, size_t run_bytes) {
    kinds.resize(rows);
    polygons.resize(rows);
    extents.resize(4 * rows);
    sizes.resize(2 * rows);
    lengths.resize(rows);
    points.resize(polygon_count);
    coordinates.resize(coordinate_count);
    runs.resize(run_bytes);
  }

  PyObject* packed() const {
    return pack({as_bytes(kinds), as_bytes(polygons), as_bytes(points), as_bytes(coordinates), as_bytes(extents),
                 as_bytes(sizes), as_bytes(lengths),
                 PyBytes_FromStringAndSize(runs.data(), static_cast<Py_ssize_t>(runs.size()))});
  }
};

// A field of all rows; only the vectors of its kind are used.
struct Column {
  std::string name;
  Kind kind;
  std::vector<uint8_t> given;
  std::vector<int64_t> wholes;  // values, or bytes of each text
  std::vector<double> numbers;  // one of each row, or four
  std::string texts;
  Masks masks;

  // Reads the value of a row; false, with the column as before, where it is not what is expected.
  bool add(Cursor& at) {
    const size_t rows = given.size();
    const size_t polygons = masks.points.size(), coordinates = masks.coordinates.size(), runs = masks.runs.size();
    bool fits = false;
    try {
      fits = add_value(at);
    } catch (...) {
      masks.cut(masks_before(rows), polygons, coordinates, runs);
      throw;
    }
    if (fits) {
      given.push_back(1);
    } else if (kind == Kind::kMask) {
      masks.cut(rows, polygons, coordinates, runs);
    }
    return fits;
  }

  size_t masks_before(size_t rows) const { return kind == Kind::kMask ? rows : 0; }

  bool add_value(Cursor& at) {
    int64_t whole = 0;
    double edges[4] = {0, 0, 0, 0};
    switch (kind) {
      case Kind::kWhole:
      case Kind::kFlag:
        if (!(kind == Kind::kWhole ? whole_of(at, whole) : flag_of(at, whole))) return false;
        wholes.push_back(whole);
        return true;
      case Kind::kNumber:
        if (!number_of(at, edges[0])) return false;
        numbers.push_back(edges[0]);
        return true;
      case Kind::kBox:
        if (!box_of(at, edges)) return false;
        numbers.insert(numbers.end(), edges, edges + 4);
        return true;
      case Kind::kText: {
        if (at.peek() != '"') return false;
        const Text text = read_text(at);
        if (text.escaped) return false;
        texts.append(text.raw);
        wholes.push_back(static_cast<int64_t>(text.raw.size()));
        return true;
      }
      case Kind::kMask:
        return masks.add(at);
    }
    return false;
  }

  void add_none() {
    given.push_back(0);
    if (kind == Kind::kMask) masks.add_none();
    if (kind == Kind::kWhole || kind == Kind::kFlag || kind == Kind::kText) wholes.push_back(0);
    if (kind == Kind::kNumber) numbers.push_back(0);
    if (kind == Kind::kBox) numbers.insert(numbers.end(), 4, 0.0);
  }

  // Takes back what a row added that the data ended in.
  void cut(size_t rows) {
    if (given.size() == rows) return;
    given.resize(rows);
    if (kind == Kind::kMask) {
      const auto polygon_count = static_cast<size_t>(masks.polygons.back());
      size_t coordinate_count = 0;
      for (size_t i = 0; i < polygon_count; ++i) coordinate_count += masks.points[masks.points.size() - 1 - i];
      masks.cut(rows, masks.points.size() - polygon_count, masks.coordinates.size() - coordinate_count,
                masks.runs.size() - static_cast<size_t>(masks.lengths.back()));
    } else if (kind == Kind::kNumber || kind == Kind::kBox) {
      numbers.resize(rows * (kind == Kind::kBox ? 4 : 1));
    } else {
      if (kind == Kind::kText) texts.resize(texts.size() - static_cast<size_t>(wholes.back()));
      wholes.resize(rows);
    }
  }

  PyObject* packed() const {
    switch (kind) {
      case Kind::kText:
        return pack({as_bytes(given), as_bytes(wholes),
                     PyBytes_FromStringAndSize(texts.data(), static_cast<Py_ssize_t>(texts.size()))});
      case Kind::kMask:
        return pack({as_bytes(given), masks.packed()});
      case Kind::kNumber:
      case Kind::kBox:
        return pack({as_bytes(given), as_bytes(numbers)});
      default:
        return pack({as_bytes(given), as_bytes(wholes)});
    }
  }
};

// Reads one element of the array into all columns; whether it is an object whose wanted fields are as expected.
bool read_row(Cursor& at, std::vector<Column>& columns, size_t row) {
  if (at.peek() != '{') {
    skip_value(at);
    return false;
  }
  ++at.place;
  bool regular = true;
  size_t likely = 0;
  for (bool first = true; at.another('}', first); first = false) {
    const Text key = read_text(at);
    at.expect(':');
    at.past_space();
    regular &= !key.escaped;
    size_t tried = 0;
    while (tried < columns.size() && columns[(likely + tried) % columns.size()].name != key.raw) ++tried;
    if (tried == columns.size()) {
      skip_value(at);
      continue;
    }
    Column& column = columns[(likely + tried) % columns.size()];
    likely += tried + 1;
    const char* start = at.place;
    if (column.given.size() == row && column.add(at)) continue;
    regular = false;
    at.place = start;
    skip_value(at);
  }
  return regular;
}

std::vector<Column> columns_of(PyObject* fields) {
  std::vector<Column> columns(static_cast<size_t>(PyTuple_Size(fields)));
  for (size_t i = 0; i < columns.size(); ++i) {
    const char* name = nullptr;
    int kind = 0;
    if (!PyArg_ParseTuple(PyTuple_GetItem(fields, static_cast<Py_ssize_t>(i)), "si", &name, &kind)) throw PythonError{};
    columns[i].name = name;
    columns[i].kind = static_cast<Kind>(kind);
  }
  return columns;
}

PyObject* read_rows(Cursor at, PyObject* fields) {
  std::vector<Column> columns = columns_of(fields);
  const char* base = at.place;
  std::vector<int64_t> starts, ends;
  std::vector<uint8_t> regular;
  const char* done = at.place;
  bool ended = false;
  try {
    // `place` stands at the sign before an element: the bracket, or the comma.
    while (true) {
      Cursor here{done, at.end};
      const char sign = here.past_space();
      const bool opening = done == base && sign == '[';
      if (!opening && sign == ']') {
        done = here.place + 1;
        ended = true;
        break;
      }
      if (!opening && sign != ',') throw Malformed{};
      ++here.place;
      if (here.past_space() == ']') {
        if (!opening) throw Malformed{};
        done = here.place + 1;
        ended = true;
        break;
      }
      const size_t row = starts.size();
      const char* start = here.place;
      const bool fits = read_row(here, columns, row);
      // The sign behind has to be there too, so that the next call finds where it goes on.
      here.past_space();
      for (Column& column : columns) {
        if (column.given.size() == row) column.add_none();
      }
      starts.push_back(start - base);
      ends.push_back(here.place - base);
      regular.push_back(fits);
      done = here.place;
    }
  } catch (const Incomplete&) {
    for (Column& column : columns) column.cut(starts.size());
  }
  PyObject* packed = PyTuple_New(static_cast<Py_ssize_t>(columns.size()));
  for (size_t i = 0; packed && i < columns.size(); ++i) {
    if (PyTuple_SetItem(packed, static_cast<Py_ssize_t>(i), columns[i].packed()) < 0) throw PythonError{};
  }
  return pack({PyLong_FromSsize_t(done - base), PyBool_FromLong(ended), as_bytes(starts), as_bytes(ends),
               as_bytes(regular), packed});
}

// Calls `read` with a cursor into the arguments' buffer; C++'s exceptions become Python's.
template <typename Read>
PyObject* guarded(PyObject* buffer, Py_ssize_t place, Py_ssize_t end, Read read) {
  Py_buffer view;
  if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0) return nullptr;
  const char* start = static_cast<const char*>(view.buf);
  PyObject* result = nullptr;
  try {
    if (place < 0 || place > end || end >= view.len || start[end] != '\0') throw Malformed{};
    result = read(Cursor{start + place, start + end});
  } catch (const Incomplete&) {
    result = Py_NewRef(Py_None);
  } catch (const Malformed&) {
    PyErr_SetString(PyExc_ValueError, "not JSON");
  } catch (const PythonError&) {
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  PyBuffer_Release(&view);
  return result;
}

PyObject* rows(PyObject*, PyObject* arguments) {
  PyObject *buffer, *fields;
  Py_ssize_t place, end;
  if (!PyArg_ParseTuple(arguments, "OnnO!", &buffer, &place, &end, &PyTuple_Type, &fields)) return nullptr;
  return guarded(buffer, place, end, [fields](Cursor at) { return read_rows(at, fields); });
}

PyObject* skip(PyObject*, PyObject* arguments) {
  PyObject* buffer;
  Py_ssize_t place, end;
  if (!PyArg_ParseTuple(arguments, "Onn", &buffer, &place, &end)) return nullptr;
  return guarded(buffer, place, end, [place](Cursor at) {
    const char* start = at.place;
    skip_value(at);
    return PyLong_FromSsize_t(place + (at.place - start));
  });
}

PyMethodDef kMethods[] = {
    {"rows", rows, METH_VARARGS,
     "rows(data, place, end, fields): the objects of an array from its bracket, or the sign behind an element, on.\n\n"
     "data: a buffer with a zero at `end`. "
     "fields: (name, kind) of each column. Gives how far it came, whether the array has ended, start and end of each\n"
     "row, whether it is regular, and the columns; all counted from `place`, numbers as 64-bit bytes.\n"
     "Raises ValueError for what is no JSON."},
    {"skip", skip, METH_VARARGS, "skip(data, place, end): where the value ends; none where the data ends before. The zero as in rows."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_json_rows", nullptr, 0, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__json_rows() { return PyModule_Create(&kModule); }
