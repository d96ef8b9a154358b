/* The command line of a compiled program. */
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { MAX_BATCH = 1 << 20 };

static const char HELP[] =
    "usage: %s [options]\n"
    "Runs the compiled model '%s' on arrays from files.\n"
    "\n"
    "inputs and outputs\n"
    "  --input [NAME=]FILE[:ARRAY]  .npy, .npz (the array of the input's name, or ARRAY), or raw\n"
    "                               bytes; a .npz without NAME= gives every input that it holds;\n"
    "                               - is standard input\n"
    "  --shape NAME:1x3x224x224     shape of a raw or random input with sizes that are not fixed\n"
    "  --random SEED                inputs that are not given are random: floats in [0, 1),\n"
    "                               integers and booleans 0 or 1; those with a default keep it\n"
    "  --output [NAME=]FILE         write an output: .npy, .npz (without NAME= all outputs), or raw\n"
    "                               bytes under any other name; - is standard output, as .npy\n"
    "  --batch N                    the files hold many samples along their first axis: run the\n"
    "                               model on N of them at a time (a model of fixed size: on as\n"
    "                               many as it takes) and concatenate the outputs\n"
    "  --labels FILE[:ARRAY]        print how often the largest element of the first output is\n"
    "                               at the given index\n"
    "running\n"
    "  --threads N                  threads (default 1; 0: one per CPU)\n"
    "  --idle HOW                   threads between runs: spin (the default, for 0.3 ms, then they\n"
    "                               sleep), or park: sleep at once, and take no processor time\n"
    "  --warmup N                   runs before the measurement (default 0)\n"
    "  --iterations N               runs to measure (default 1)\n"
    "  --duration SECONDS           go on measuring until so much time has passed\n"
    "  --max-trips N                fail where a loop goes on for more rounds\n"
    "  --weights FILE               side file of the weights, if it was moved\n"
    "  --cache BYTES                keep responses in so much memory, and answer calls of the same\n"
    "                               inputs by them (64M: K, M and G are powers of 1024)\n"
    "measuring\n"
    "  --measure                    run in several instances at once, on all samples in turns, for\n"
    "                               --duration (default 1); print times, processor time and memory\n"
    "  --instances N                instances that take turns at one queue (default: as many as the\n"
    "                               CPUs allow, with --threads each)\n"
    "  --load RATE                  so many calls per second arrive by chance (Poisson), whatever\n"
    "                               the instances do: times are those of wait and run\n"
    "printing\n"
    "  --json                       one JSON object on standard output\n"
    "  --quiet                      do not print the output values\n"
    "  --info                       describe the model and stop\n"
    "  --help                       this text\n"
    "\n"
    "exit codes: 0 done, 1 the run failed, 2 wrong usage or files, 3 the CPU cannot run it\n";

static int64_t number(const char *option, const char *text, int64_t least, int64_t most) {
  char *end;
  const long long value = strtoll(text, &end, 10);
  if (end == text || *end || value < least || value > most)
    die(EXIT_USAGE, "%s: expected a number from %lld to %lld, got '%s'", option, (long long)least,
        (long long)most, text);
  return value;
}

static int64_t bytes(const char *option, const char *text) {
  char *end;
  const long long value = strtoll(text, &end, 10);
  const char *known = "KMG", *unit = *end ? strchr(known, *end) : NULL;
  const int shift = unit ? 10 * (int)(unit - known + 1) : 0;
  if (end == text || (*end && (!unit || end[1])) || value < 0 || value > INT64_MAX >> shift ||
      value << shift < TS_LEAST_CACHE_BYTES)
    die(EXIT_USAGE, "%s: expected bytes, %dK at least, got '%s'", option,
        TS_LEAST_CACHE_BYTES >> 10, text);
  return value << shift;
}

static double seconds(const char *option, const char *text) {
  char *end;
  const double value = strtod(text, &end);
  if (end == text || *end || !(value >= 0 && value <= 1e6))
    die(EXIT_USAGE, "%s: expected seconds, got '%s'", option, text);
  return value;
}

int32_t find_tensor(const ts_tensor_info *infos, int32_t count, const char *name, size_t length) {
  for (int32_t i = 0; i < count; ++i)
    if (strlen(infos[i].name) == length && !memcmp(infos[i].name, name, length)) return i;
  return -1;
}

static _Noreturn void die_unknown(const char *option, const ts_tensor_info *infos, int32_t count,
                                  const char *text) {
  char names[512] = "";
  size_t used = 0;
  for (int32_t i = 0; i < count && used < sizeof names; ++i)
    used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", i ? ", " : "",
                             infos[i].name);
  die(EXIT_USAGE, "%s %s: expected the name of one of: %s", option, text, names);
}

static int is_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file) fclose(file);
  return file != NULL;
}

/* Splits NAME<separator>VALUE where NAME is one of `infos`; else the whole text is the value. Of
 * several names it is that whose value is a file to read, then the longest. */
static binding split(const char *option, const char *text, char separator,
                     const ts_tensor_info *infos, int32_t count) {
  const int reads = !strcmp(option, "--input");
  binding found = {NULL, text};
  for (const char *at = strchr(text, separator); at; at = strchr(at + 1, separator)) {
    const int32_t index = find_tensor(infos, count, text, (size_t)(at - text));
    if (index < 0 || (found.name && reads && is_file(found.value) && !is_file(at + 1))) continue;
    found = (binding){infos[index].name, at + 1};
  }
  if (found.name) return found;
  if (separator != '=' || strchr(text, separator)) die_unknown(option, infos, count, text);
  return (binding){NULL, text};
}

static void add(binding **list, int32_t *count, binding item) {
  *list = realloc(*list, (size_t)(*count + 1) * sizeof **list);
  if (!*list) die(EXIT_RUN, "no memory for the command line");
  (*list)[(*count)++] = item;
}

static int parse_flag(options *out, const char *name) {
  if (!strcmp(name, "--json")) out->json = 1;
  else if (!strcmp(name, "--quiet")) out->quiet = 1;
  else if (!strcmp(name, "--info")) out->info = 1;
  else if (!strcmp(name, "--measure")) out->measure = 1;
  else return 0;
  return 1;
}

static int parse_tensor_option(options *out, const char *name, const char *value,
                               const ts_model *model) {
  if (!strcmp(name, "--input"))
    add(&out->inputs, &out->input_count,
        split(name, value, '=', model->inputs, model->input_count));
  else if (!strcmp(name, "--shape"))
    add(&out->shapes, &out->shape_count,
        split(name, value, ':', model->inputs, model->input_count));
  else if (!strcmp(name, "--output"))
    add(&out->outputs, &out->output_count,
        split(name, value, '=', model->outputs, model->output_count));
  else
    return 0;
  return 1;
}

static int parse_value(options *out, const char *name, const char *value) {
  if (!strcmp(name, "--threads")) {
    out->threads = (int32_t)number(name, value, 0, MAX_THREADS);
  } else if (!strcmp(name, "--instances")) {
    out->instances = (int32_t)number(name, value, 1, 1024);
  } else if (!strcmp(name, "--load")) {
    out->load = seconds(name, value);
    if (out->load <= 0) die(EXIT_USAGE, "--load: expected calls per second, got '%s'", value);
  } else if (!strcmp(name, "--cache")) {
    out->cache_bytes = bytes(name, value);
  } else if (!strcmp(name, "--idle")) {
    out->parks = !strcmp(value, "park");
    if (!out->parks && strcmp(value, "spin"))
      die(EXIT_USAGE, "--idle: expected spin or park, got '%s'", value);
  } else if (!strcmp(name, "--max-trips")) {
    out->max_trips = number(name, value, 1, INT64_MAX);
  } else if (!strcmp(name, "--random")) {
    out->seed = (uint64_t)number(name, value, 0, INT64_MAX);
    out->random = 1;
  } else if (!strcmp(name, "--batch")) {
    out->batch = number(name, value, 1, MAX_BATCH);
  } else if (!strcmp(name, "--labels")) {
    out->labels = value;
  } else if (!strcmp(name, "--weights")) {
    out->weights = value;
  } else {
    out->timed = 1;
    if (!strcmp(name, "--warmup")) out->warmup = number(name, value, 0, INT64_MAX);
    else if (!strcmp(name, "--iterations")) out->iterations = number(name, value, 1, INT64_MAX);
    else if (!strcmp(name, "--duration")) out->duration = seconds(name, value);
    else return 0;
  }
  return 1;
}

void parse_options(options *out, int argc, char **argv, const ts_model *model) {
  *out = (options){.threads = 1, .iterations = 1};
  for (int i = 1; i < argc; ++i) {
    char name[32];
    const char *value = strchr(argv[i], '=');
    const size_t length = value ? (size_t)(value - argv[i]) : strlen(argv[i]);
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
      printf(HELP, argv[0], model->name);
      exit(0);
    }
    if (strncmp(argv[i], "--", 2) || length >= sizeof name)
      die(EXIT_USAGE, "unknown argument '%s'; --help lists the options", argv[i]);
    memcpy(name, argv[i], length);
    name[length] = '\0';
    if (!value && parse_flag(out, name)) continue;
    if (!value && i + 1 == argc)
      die(EXIT_USAGE, "'%s' needs a value, or is unknown; --help lists the options", name);
    value = value ? value + 1 : argv[++i];
    if (!parse_tensor_option(out, name, value, model) && !parse_value(out, name, value))
      die(EXIT_USAGE, "unknown option '%s'; --help lists the options", name);
  }
  for (int32_t i = 0; i < out->output_count; ++i)
    if (!strcmp(out->outputs[i].value, "-") && (out->json || out->timed || out->batch || out->labels))
      die(EXIT_USAGE, "--output -: standard output cannot hold a report as well");
  if ((out->instances || out->load > 0) && !out->measure)
    die(EXIT_USAGE, "--instances and --load are told to --measure");
  if (out->measure && (out->output_count || out->labels))
    die(EXIT_USAGE, "--measure keeps no outputs: leave out --output and --labels");
  if (out->batch && out->timed && !out->measure)
    die(EXIT_USAGE, "--batch makes one pass over the samples: leave out --warmup, --iterations and "
                    "--duration");
}
