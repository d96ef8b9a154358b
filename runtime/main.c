/* The program that `--emit exe` makes of a model: runs it on files, checks it, measures it. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "program.h"

typedef struct {
  const ts_model *model;
  const options *chosen;
  ts_instance *instance;
  array *inputs;      /* of the whole job */
  DLTensor *slice;    /* inputs of one run */
  DLTensor *outputs;  /* of one run */
  array *gathered;    /* outputs of the whole job */
  measurement measured;
  int64_t capacity; /* of measured.nanoseconds */
} job;

void die(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fflush(stdout);
  fprintf(stderr, "error: ");
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(code);
}

void *allocate(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) die(EXIT_RUN, "no memory for %zu bytes", bytes);
  return memory;
}

int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

void check(ts_status status, const ts_instance *instance) {
  if (!status) return;
  const int code = status == TS_ERROR_CPU ? EXIT_CPU
                   : status == TS_ERROR_INPUT || status == TS_ERROR_WEIGHTS ||
                           status == TS_ERROR_ARGUMENT
                       ? EXIT_USAGE
                       : EXIT_RUN;
  die(code, "%s", ts_last_error(instance));
}

static void run_once(job *j, int measure) {
  memset(j->outputs, 0, (size_t)j->model->output_count * sizeof *j->outputs);
  const int64_t begin = now();
  const ts_status status = ts_run(j->instance, j->slice, j->model->input_count, j->outputs,
                                  j->model->output_count);
  const int64_t end = now();
  check(status, j->instance);
  if (!measure) return;
  measurement *measured = &j->measured;
  if (measured->runs == j->capacity) {
    j->capacity = j->capacity ? 2 * j->capacity : 1024;
    measured->nanoseconds =
        realloc(measured->nanoseconds, (size_t)j->capacity * sizeof *measured->nanoseconds);
    if (!measured->nanoseconds) die(EXIT_RUN, "no memory for the measurements");
  }
  measured->nanoseconds[measured->runs++] = end - begin;
}

static void run_repeatedly(job *j) {
  const options *chosen = j->chosen;
  for (int32_t i = 0; i < j->model->input_count; ++i) j->slice[i] = j->inputs[i].tensor;
  for (int64_t i = 0; i < chosen->warmup; ++i) run_once(j, 0);
  const int64_t deadline = now() + (int64_t)(chosen->duration * 1e9);
  do run_once(j, 1);
  while (j->measured.runs < chosen->iterations || now() < deadline);
  j->measured.samples = j->measured.runs;
}

/* ---- Many samples ---------------------------------------------------------------------------- */

/* Appends an output of one run along axis 0 (a new axis if one was dropped or it is a scalar). */
static void gather_output(job *j, int32_t index, int drop) {
  const DLTensor *part = &j->outputs[index];
  array *whole = &j->gathered[index];
  const int stacked = drop || part->ndim == 0;
  const int64_t rows = stacked ? 1 : part->shape[0];
  const int64_t *tail = part->shape + (stacked ? 0 : 1);
  const int32_t tail_dims = part->ndim - !stacked;
  if (tail_dims + 1 > MAX_DIMS) die(EXIT_RUN, "an output has too many dimensions");
  const int64_t bytes = ts_tensor_bytes(part->dtype, part->ndim, part->shape);
  if (!whole->memory) {
    whole->tensor = (DLTensor){
        .device = {kDLCPU, 0}, .ndim = tail_dims + 1, .dtype = part->dtype, .shape = whole->shape};
    memcpy(whole->shape + 1, tail, (size_t)tail_dims * sizeof *tail);
  } else if (memcmp(whole->shape + 1, tail, (size_t)tail_dims * sizeof *tail)) {
    die(EXIT_RUN, "output '%s' changes its shape from run to run and cannot be concatenated",
        j->model->outputs[index].name);
  }
  const int64_t before = ts_tensor_bytes(part->dtype, whole->tensor.ndim, whole->shape);
  whole->memory = realloc(whole->memory, (size_t)(before + bytes) + 1);
  if (!whole->memory) die(EXIT_RUN, "no memory for the outputs");
  memcpy((char *)whole->memory + before, part->data, (size_t)bytes);
  whole->tensor.data = whole->memory;
  whole->shape[0] += rows;
}

static void run_samples(job *j) {
  const int32_t count = j->model->input_count;
  cut *cuts = allocate((size_t)count * sizeof *cuts);
  int64_t(*shapes)[MAX_DIMS + 1] = allocate((size_t)count * sizeof *shapes);
  const int64_t runs = plan_cuts(j->model, j->inputs, j->chosen->batch, cuts);
  int drop = 0;
  for (int32_t i = 0; i < count; ++i) {
    drop |= cuts[i].drop;
    if (runs_of(cuts[i]) == runs && cuts[i].count > j->measured.samples)
      j->measured.samples = cuts[i].count;
  }
  for (int64_t run = 0; run < runs; ++run) {
    for (int32_t i = 0; i < count; ++i)
      j->slice[i] = slice_of(&j->inputs[i].tensor, cuts[i], runs_of(cuts[i]) == 1 ? 0 : run,
                             shapes[i]);
    run_once(j, 1);
    for (int32_t i = 0; i < j->model->output_count; ++i) gather_output(j, i, drop);
  }
  for (int32_t i = 0; i < j->model->output_count; ++i) j->outputs[i] = j->gathered[i].tensor;
  free(cuts);
  free(shapes);
}

/* ---- Results --------------------------------------------------------------------------------- */

static void score(job *j) {
  if (!j->chosen->labels) return;
  if (!j->model->output_count) die(EXIT_USAGE, "--labels: the model has no outputs");
  array labels = {0};
  const char *member = strrchr(j->chosen->labels, ':');
  char *path = allocate(strlen(j->chosen->labels) + 1);
  strcpy(path, j->chosen->labels);
  if (member) path[member++ - j->chosen->labels] = '\0';
  read_array(&labels, path, member ? member : "labels", NULL, NULL);
  j->measured.accuracy = top1_accuracy(&j->outputs[0], &labels.tensor);
  j->measured.samples = labels.tensor.ndim ? labels.shape[0] : 1;
  free(labels.memory);
  free(path);
}

/* Index of the output that a binding names, or -1 for all of them (a .npz without a name). */
static int32_t output_of(const ts_model *model, const binding *to) {
  if (to->name)
    return find_tensor(model->outputs, model->output_count, to->name, strlen(to->name));
  if (names_npz(to->value)) return -1;
  if (model->output_count != 1)
    die(EXIT_USAGE, "--output %s: say which output: --output NAME=%s, or a .npz for all",
        to->value, to->value);
  return 0;
}

/* Writes the file of binding `first`, with all outputs that go there. */
static void write_file(const job *j, int32_t first, const char **names, const DLTensor **tensors) {
  const ts_model *model = j->model;
  const char *path = j->chosen->outputs[first].value;
  char *wanted = allocate((size_t)model->output_count);
  int32_t count = 0;
  for (int32_t i = first; i < j->chosen->output_count; ++i) {
    if (strcmp(j->chosen->outputs[i].value, path)) continue;
    const int32_t index = output_of(model, &j->chosen->outputs[i]);
    for (int32_t k = 0; k < model->output_count; ++k) wanted[k] |= index < 0 || index == k;
  }
  for (int32_t k = 0; k < model->output_count; ++k) {
    if (!wanted[k]) continue;
    names[count] = model->outputs[k].name;
    tensors[count++] = &j->outputs[k];
  }
  free(wanted);
  if (count != 1 && !names_npz(path))
    die(EXIT_USAGE, "--output: '%s' can hold one output; name it .npz", path);
  write_arrays(path, names, tensors, count);
}

static void write_outputs(const job *j) {
  const size_t count = (size_t)j->model->output_count;
  const char **names = allocate(count * sizeof *names);
  const DLTensor **tensors = allocate(count * sizeof *tensors);
  for (int32_t i = 0; i < j->chosen->output_count; ++i) {
    int32_t first = 0;
    while (strcmp(j->chosen->outputs[first].value, j->chosen->outputs[i].value)) ++first;
    if (first == i) write_file(j, i, names, tensors);
  }
  free(names);
  free(tensors);
}

static int finished(void) {
  if (fflush(stdout) || ferror(stdout)) die(EXIT_RUN, "standard output could not be written");
  return 0;
}

int main(int argc, char **argv) {
  options chosen;
  const ts_model *model = ts_model_get();
  parse_options(&chosen, argc, argv, model);
  if (chosen.info) {
    print_info(model, chosen.json);
    return 0;
  }
  ts_options settings = TS_OPTIONS_DEFAULT;
  settings.threads = chosen.threads;
  settings.max_trips = chosen.max_trips;
  settings.idle = chosen.parks ? TS_IDLE_PARK : 0;
  settings.weights_path = chosen.weights;
  if (chosen.cache_bytes && ts_cache_create((uint64_t)chosen.cache_bytes, &settings.cache))
    die(EXIT_RUN, "no memory for a cache of %" PRId64 " bytes", chosen.cache_bytes);
  if (chosen.measure) {
    array *inputs = allocate((size_t)model->input_count * sizeof *inputs);
    load_inputs(inputs, model, &chosen);
    probe(model, &chosen, &settings, inputs);
    ts_cache_destroy(settings.cache);
    return finished();
  }
  job j = {.model = model, .chosen = &chosen, .measured = {.accuracy = -1}};
  check(ts_create(model, &settings, &j.instance), j.instance);
  j.inputs = allocate((size_t)model->input_count * sizeof *j.inputs);
  j.slice = allocate((size_t)model->input_count * sizeof *j.slice);
  j.outputs = allocate((size_t)model->output_count * sizeof *j.outputs);
  j.gathered = allocate((size_t)model->output_count * sizeof *j.gathered);
  load_inputs(j.inputs, model, &chosen);
  if (chosen.batch) run_samples(&j);
  else run_repeatedly(&j);
  score(&j);
  write_outputs(&j);
  print_report(model, &chosen, ts_threads(j.instance), &j.measured, j.outputs);
  ts_destroy(j.instance);
  ts_cache_destroy(settings.cache);
  return finished();
}
