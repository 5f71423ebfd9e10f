// hiresvit-run BUNDLE IMAGE: what a bundle says to a picture, an overlay of it, and how long it takes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench.hpp"
#include "image.hpp"

namespace {

const char* const kHelp =
    "hiresvit-run BUNDLE IMAGE [options]: runs a bundle that `hiresvit export` wrote on a PNG or JPEG.\n"
    "  -o, --output FILE.png  the picture, half and half with the colours of its classes, or with its boxes\n"
    "  --labels FILE.png      the label map: a class a pixel, with the colours as its palette\n"
    "  --json                 the answer as one line of JSON; with --bench the document of `hiresvit bench --json`\n"
    "  --graph ROLE           cpu, simplified, fp32, fp16, int8, plan or int8_plan\n"
    "  --backend NAME         onnxruntime or tensorrt\n"
    "  --library PATH         the runtime's shared library, else HIRESVIT_ONNXRUNTIME or what the loader finds\n"
    "  --context FILE.onnx    a compiled context of the bundle's for Qualcomm's HTP, which runs in its graph's place\n"
    "  --provider PATH        Qualcomm's plug-in for ONNX Runtime, else HIRESVIT_QNN or what the loader finds\n"
    "  --soc-model N          refuse a context that was compiled for another chip\n"
    "  --threads N            of the CPU; 0 is as many as this process may use\n"
    "  --bench N              time N frames, in trtexec's words\n"
    "  --no-golden            do not replay the golden pair first\n"
    "  --device N, --cuda-graph, --host-code   for plans\n"
    "  --help, --version\n"
    "Exit codes: 0 done, 1 bad input, 2 usage, 3 a graph that its runtime does not take, 5 a runtime that failed,\n"
    "6 a library or device that is missing, 7 a damaged bundle.\n";

struct Arguments {
  std::string bundle, image, overlay, labels;
  hiresvit::Options options;
  int bench = 0;
  bool json = false;
};

// Whether the one document of --json is that of the times.
bool own_times(const Arguments& asked) { return asked.json && asked.bench > 0; }

// One line of an answer: a class and its share of the picture, its probability, or a box and its score.
struct Row {
  int label;
  double value;
  std::vector<float> box;
};

int number(const std::string& option, const char* text, int least, int most) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < least || value > most) {
    throw Failure(2, option + " " + text + ": a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return static_cast<int>(value);
}

Arguments parse(int count, char** words) {
  Arguments own;
  hiresvit::Options& options = own.options;
  const std::map<std::string, std::string*> texts{{"-o", &own.overlay},          {"--output", &own.overlay},
                                                  {"--labels", &own.labels},     {"--graph", &options.graph},
                                                  {"--backend", &options.backend}, {"--library", &options.library},
                                                  {"--context", &options.context}, {"--provider", &options.provider}};
  const std::map<std::string, int*> numbers{
      {"--threads", &options.threads},
      {"--bench", &own.bench},
      {"--device", &options.device},
      {"--soc-model", &options.soc_model}};
  const std::map<std::string, std::function<void()>> flags{
      {"--json", [&] { own.json = true; }},
      {"--no-golden", [&] { options.golden = false; }},
      {"--cuda-graph", [&] { options.cuda_graph = true; }},
      {"--host-code", [&] { options.host_code = true; }}};
  std::vector<std::string> places;
  for (int at = 1; at < count; ++at) {
    const std::string word = words[at];
    const auto text = texts.find(word);
    const auto value = numbers.find(word);
    const auto flag = flags.find(word);
    if (flag != flags.end()) {
      flag->second();
    } else if (text != texts.end() || value != numbers.end()) {
      if (++at == count) throw Failure(2, word + " needs a value; see --help");
      if (text != texts.end()) *text->second = words[at];
      if (value != numbers.end()) *value->second = number(word, words[at], word == "--bench" ? 1 : 0, 1'000'000);
    } else if (word.size() > 1 && word[0] == '-') {
      throw Failure(2, "no such option: " + word + "; see --help");
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) throw Failure(2, "a bundle's folder and a picture are needed; see --help");
  own.bundle = places[0], own.image = places[1];
  return own;
}

// The bundle's, or shades of a circle of hues where it knows none.
Colours colours_of(const hiresvit::Engine& engine, int classes) {
  Colours colours;
  for (int index = 0; index < classes; ++index) {
    std::array<std::uint8_t, 3> rgb{static_cast<std::uint8_t>(37 * index), static_cast<std::uint8_t>(91 * index + 64),
                                    static_cast<std::uint8_t>(151 * index + 128)};
    if (index < engine.info().named_classes) rgb = engine.class_colour(index);
    colours.insert(colours.end(), rgb.begin(), rgb.end());
  }
  return colours;
}

std::string name_of(const hiresvit::Engine& engine, int index) {
  return index < engine.info().named_classes ? engine.class_name(index) : "class " + std::to_string(index);
}

void print_json(const hiresvit::Engine& engine, const char* answer, const char* value, const std::vector<Row>& rows) {
  using Json = nlohmann::ordered_json;
  const hiresvit_info info = engine.info();
  Json all{{"model", info.model}, {"graph", info.graph}, {"backend", info.backend}, {answer, Json::array()}};
  for (const Row& row : rows) {
    Json one{{"class", row.label}, {"name", name_of(engine, row.label)}, {value, row.value}};
    if (!row.box.empty()) one["box"] = row.box;
    all[answer].push_back(std::move(one));
  }
  std::printf("%s\n", all.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

// `answer` and `value` are the keys of its JSON: "shares" of "share", which is printed as per cent.
void print(const hiresvit::Engine& engine, bool json, const char* answer, const char* value,
           const std::vector<Row>& rows) {
  if (json) return print_json(engine, answer, value, rows);
  const hiresvit_info info = engine.info();
  std::printf("%s (%s, %s)\n", info.model, info.graph, info.backend);
  for (const Row& row : rows) {
    if (value == std::string("share")) {
      std::printf("%6.2f %%", 100 * row.value);
    } else {
      std::printf("%8.4f", row.value);
    }
    for (const float side : row.box) std::printf("  %7.1f", static_cast<double>(side));
    std::printf("  %s\n", name_of(engine, row.label).c_str());
  }
}

// The classes of a label map, largest first.
std::vector<Row> shares_of(const std::vector<std::int32_t>& labels, int classes) {
  std::vector<std::size_t> counts(static_cast<std::size_t>(classes));
  for (const std::int32_t label : labels) ++counts.at(static_cast<std::size_t>(label));
  std::vector<Row> rows;
  for (int index = 0; index < classes; ++index) {
    const std::size_t count = counts[static_cast<std::size_t>(index)];
    if (count > 0) rows.push_back({index, static_cast<double>(count) / static_cast<double>(labels.size()), {}});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.value > b.value; });
  return rows;
}

void paint(Image& image, const std::vector<std::int32_t>& labels, const Colours& colours) {
  for (std::size_t pixel = 0; pixel < labels.size(); ++pixel) {
    const std::uint8_t* const colour = colours.data() + 3 * static_cast<std::size_t>(labels[pixel]);
    for (std::size_t channel = 0; channel < 3; ++channel) {
      std::uint8_t& value = image.rgb[3 * pixel + channel];
      value = static_cast<std::uint8_t>((value + colour[channel] + 1) >> 1);
    }
  }
}

void segment(hiresvit::Engine& engine, Image image, const Arguments& asked, int classes) {
  std::vector<std::int32_t> labels(image.rgb.size() / 3);
  const hiresvit::Picture picture = hiresvit::rgb(image.rgb.data(), image.height, image.width);
  engine.segment(picture, labels.data());
  if (!own_times(asked)) print(engine, asked.json, "shares", "share", shares_of(labels, classes));
  const Colours colours = colours_of(engine, classes);
  if (!asked.labels.empty()) write_labels(asked.labels, labels, image.height, image.width, colours);
  if (asked.bench > 0) {  // of labels as an app would take them
    std::vector<std::uint8_t> narrow(labels.size());
    const hiresvit::Answer answer = classes <= 256 ? hiresvit::label_map(narrow.data(), image.height, image.width)
                                                   : hiresvit::label_map(labels.data(), image.height, image.width);
    bench(engine, picture, answer, asked.bench, asked.json);
  }
  if (asked.overlay.empty()) return;
  paint(image, labels, colours);
  write_rgb(asked.overlay, image);
}

void classify(hiresvit::Engine& engine, const Image& image, const Arguments& asked) {
  if (!asked.overlay.empty() || !asked.labels.empty()) {
    throw Failure(2, "a classifier has no labels to write: leave -o and --labels out");
  }
  const hiresvit::Picture picture = hiresvit::rgb(image.rgb.data(), image.height, image.width);
  std::vector<Row> rows;
  for (const hiresvit::Class& best : engine.classify(picture)) rows.push_back({best.index, best.probability, {}});
  if (!own_times(asked)) print(engine, asked.json, "top", "probability", rows);
  hiresvit::Answer answer{};
  answer.struct_size = sizeof answer;
  if (asked.bench > 0) bench(engine, picture, answer, asked.bench, asked.json);
}

// A line of two pixels along the inside of a box.
void draw(Image& image, const std::vector<float>& box, const std::uint8_t* colour) {
  const auto pixel = [](float at, int side) { return std::clamp(static_cast<int>(at), 0, side - 1); };
  const int left = pixel(box[0], image.width), top = pixel(box[1], image.height);
  const int right = pixel(box[2], image.width), bottom = pixel(box[3], image.height);
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      if (std::min({x - left, right - x, y - top, bottom - y}) > 1) continue;
      std::copy_n(colour, 3, image.rgb.begin() + 3 * (std::ptrdiff_t{y} * image.width + x));
    }
  }
}

void detect(hiresvit::Engine& engine, Image image, const Arguments& asked, const hiresvit_info& info) {
  if (!asked.labels.empty()) throw Failure(2, "a detector has no label map to write: leave --labels out");
  const hiresvit::Picture picture = hiresvit::rgb(image.rgb.data(), image.height, image.width);
  std::vector<Row> rows;
  for (const hiresvit::Detection& found : engine.detect(picture)) {
    rows.push_back({found.label, found.score, {std::begin(found.box), std::end(found.box)}});
  }
  if (!own_times(asked)) print(engine, asked.json, "boxes", "score", rows);
  if (asked.bench > 0) {
    std::vector<hiresvit::Detection> boxes(static_cast<std::size_t>(info.most_boxes));
    hiresvit::Answer answer{};
    answer.struct_size = sizeof answer;
    answer.k = info.most_boxes, answer.boxes = boxes.data();
    bench(engine, picture, answer, asked.bench, asked.json);
  }
  if (asked.overlay.empty()) return;
  const Colours colours = colours_of(engine, info.num_classes);
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) draw(image, row->box, colours.data() + 3 * row->label);
  write_rgb(asked.overlay, image);
}

void run(const Arguments& asked) {
  const Image image = read_image(asked.image);  // before a graph is loaded for nothing
  hiresvit::Engine engine(asked.bundle, asked.options);
  const hiresvit_info info = engine.info();
  if (info.task == HIRESVIT_FEATURES || info.task == HIRESVIT_MASKS) {
    const char* const what = info.task == HIRESVIT_FEATURES ? "feature maps are" : "masks and their classes are";
    throw Failure(2, asked.bundle + ": " + what + " no answer to print: an app reads them with Engine::output");
  }
  if (asked.bench > 0 && info.emulated != 0) {
    throw Failure(2, "an emulator's time says nothing of the chip: leave --bench out, or run this on the device");
  }
  if (info.task == HIRESVIT_CLASSIFY) {
    classify(engine, image, asked);
  } else if (info.task == HIRESVIT_DETECT) {
    detect(engine, image, asked, info);
  } else {
    segment(engine, image, asked, info.num_classes);
  }
}

int fail(int code, const char* text) {
  std::fprintf(stderr, "error: %s\n", text);
  return code;
}

}  // namespace

int main(int count, char** words) {
  // ONNX Runtime's own reports to its makers; before it is loaded, and unless the user says otherwise.
  ::setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  for (int at = 1; at < count; ++at) {
    const std::string word = words[at];
    if (word == "--help" || word == "-h") return std::fputs(kHelp, stdout) < 0;
    if (word == "--version") return std::printf("%s\n", hiresvit_version()) < 0;
  }
  try {
    run(parse(count, words));
    if (std::fflush(stdout) != 0) return fail(1, "the output cannot be written");
    return 0;
  } catch (const Failure& failure) {
    return fail(failure.code, failure.what());
  } catch (const hiresvit::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(5, "the memory is used up; give a smaller picture");
  } catch (const std::exception& error) {
    return fail(5, error.what());
  }
}
