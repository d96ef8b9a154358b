/* Responses of earlier calls, by the bytes of their inputs; the least recently used one goes first. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { BYTES_OF_A_BUCKET = 1024 };

typedef struct entry entry;
struct entry {
  entry *newer, *older; /* by use */
  entry *chained;       /* in the same bucket */
  const ts_model *model;
  uint64_t hash;
  size_t key_bytes, bytes; /* bytes: of all, this struct included */
  char data[];             /* symbols and inputs; then of each output its sizes and its elements */
};

struct ts_cache {
  pthread_mutex_t lock;
  uint64_t limit, used;
  entry **buckets;
  size_t bucket_count; /* a power of two */
  entry *newest, *oldest;
  int64_t hits, misses, entries, evicted;
};

/* Of the cache itself, without entries. */
static uint64_t own_bytes(const ts_cache *cache) {
  return sizeof *cache + cache->bucket_count * sizeof *cache->buckets;
}

ts_status ts_cache_create(uint64_t bytes, ts_cache **out) {
  if (!out || bytes < TS_LEAST_CACHE_BYTES) return TS_ERROR_ARGUMENT;
  ts_cache *cache = *out = calloc(1, sizeof *cache);
  if (!cache) return TS_ERROR_MEMORY;
  cache->bucket_count = 1;
  while (cache->bucket_count * 2 <= bytes / BYTES_OF_A_BUCKET) cache->bucket_count *= 2;
  cache->buckets = calloc(cache->bucket_count, sizeof *cache->buckets);
  if (!cache->buckets || pthread_mutex_init(&cache->lock, NULL)) {
    free(cache->buckets);
    free(cache);
    *out = NULL;
    return TS_ERROR_MEMORY;
  }
  cache->limit = bytes;
  cache->used = own_bytes(cache);
  return TS_OK;
}

void ts_cache_destroy(ts_cache *cache) {
  if (!cache) return;
  for (entry *at = cache->newest, *next; at; at = next) {
    next = at->older;
    free(at);
  }
  pthread_mutex_destroy(&cache->lock);
  free(cache->buckets);
  free(cache);
}

ts_status ts_cache_read(ts_cache *cache, ts_cache_counters *counters) {
  if (!cache || !counters) return TS_ERROR_ARGUMENT;
  if (counters->size != sizeof *counters) return TS_ERROR_VERSION;
  pthread_mutex_lock(&cache->lock);
  *counters = (ts_cache_counters){.size = sizeof *counters,
                                  .hits = cache->hits,
                                  .misses = cache->misses,
                                  .entries = cache->entries,
                                  .bytes = (int64_t)cache->used,
                                  .evicted = cache->evicted};
  pthread_mutex_unlock(&cache->lock);
  return TS_OK;
}

/* ---- Keys: the sizes of open dims, then all inputs, as the run has bound them ------------------ */

typedef struct {
  const void *data;
  size_t bytes;
} part;

static size_t input_bytes(const ts_instance *instance, int32_t index) {
  const ts_model *model = instance->model;
  const ts_tensor_info *info = &model->inputs[index];
  int64_t count = 1;
  for (int32_t d = 0; d < info->ndim; ++d) {
    const int32_t symbol = model->input_symbols[index][d];
    count *= symbol < 0 ? info->dims[d] : instance->symbols[symbol];
  }
  return (size_t)count * ts_item_bytes(info->dtype);
}

/* Part 0: the sizes; part n: input n - 1. */
static part key_part(const ts_instance *instance, int32_t number) {
  if (!number)
    return (part){instance->symbols, (size_t)instance->model->symbol_count * sizeof(int64_t)};
  return (part){instance->input_data[number - 1], input_bytes(instance, number - 1)};
}

/* Spread over 64 bits, eight bytes at a time (multiply and fold). Keys are compared whole: a poor
 * hash costs time, and never a wrong answer. */
static uint64_t mixed(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

uint64_t ts_cache_hash(const ts_instance *instance) {
  uint64_t hash = (uint64_t)(uintptr_t)instance->model;
  for (int32_t n = 0; n <= instance->model->input_count; ++n) {
    const part own = key_part(instance, n);
    const char *data = own.data;
    uint64_t word;
    size_t at = 0;
    for (; at + sizeof word <= own.bytes; at += sizeof word) {
      memcpy(&word, data + at, sizeof word);
      hash = mixed(hash, word);
    }
    word = 0;
    if (at < own.bytes) memcpy(&word, data + at, own.bytes - at);
    hash = mixed(hash, word ^ own.bytes);
  }
  return hash;
}

static int has_key(const entry *found, const ts_instance *instance, uint64_t hash) {
  if (found->hash != hash || found->model != instance->model) return 0;
  size_t at = 0;
  for (int32_t n = 0; n <= instance->model->input_count; ++n) {
    const part own = key_part(instance, n);
    if (at + own.bytes > found->key_bytes) return 0;
    if (own.bytes && memcmp(found->data + at, own.data, own.bytes)) return 0;
    at += own.bytes;
  }
  return at == found->key_bytes;
}

/* ---- The table and the order of use ------------------------------------------------------------ */

static entry **bucket_of(ts_cache *cache, uint64_t hash) {
  return &cache->buckets[(hash ^ hash >> 32) & (cache->bucket_count - 1)];
}

static entry *find(ts_cache *cache, const ts_instance *instance, uint64_t hash) {
  entry *at = *bucket_of(cache, hash);
  while (at && !has_key(at, instance, hash)) at = at->chained;
  return at;
}

static void unlink_use(ts_cache *cache, entry *at) {
  *(at->newer ? &at->newer->older : &cache->newest) = at->older;
  *(at->older ? &at->older->newer : &cache->oldest) = at->newer;
}

static void link_newest(ts_cache *cache, entry *at) {
  at->newer = NULL;
  at->older = cache->newest;
  *(cache->newest ? &cache->newest->newer : &cache->oldest) = at;
  cache->newest = at;
}

static void evict(ts_cache *cache) {
  entry *at = cache->oldest, **from = bucket_of(cache, at->hash);
  while (*from != at) from = &(*from)->chained;
  *from = at->chained;
  unlink_use(cache, at);
  cache->used -= at->bytes;
  --cache->entries;
  ++cache->evicted;
  free(at);
}

/* ---- Answers ----------------------------------------------------------------------------------- */

/* Copies the results of an entry to where the run's outputs go; the errors are those of a run. */
static void give(ts_instance *instance, const entry *found) {
  ts_frame frame = {.instance = instance};
  const char *data = found->data + found->key_bytes;
  for (int32_t i = 0; i < instance->model->output_count; ++i) {
    const ts_tensor_info *info = &instance->model->outputs[i];
    int64_t dims[64];
    memcpy(dims, data, (size_t)info->ndim * sizeof *dims);
    data += (size_t)info->ndim * sizeof *dims;
    const size_t bytes = (size_t)ts_tensor_bytes(info->dtype, info->ndim, dims);
    void *to = ts_rt_output(&frame, i, dims);
    if (!to) return;
    memcpy(to, data, bytes);
    data += bytes;
  }
}

int ts_cache_answer(ts_cache *cache, ts_instance *instance, uint64_t hash) {
  pthread_mutex_lock(&cache->lock);
  entry *found = find(cache, instance, hash);
  ++*(found ? &cache->hits : &cache->misses);
  if (found) {
    unlink_use(cache, found);
    link_newest(cache, found);
    give(instance, found);
  }
  pthread_mutex_unlock(&cache->lock);
  return found != NULL;
}

static entry *made(const ts_instance *instance, uint64_t hash, uint64_t most) {
  const ts_model *model = instance->model;
  size_t key = 0, bytes = sizeof(entry);
  for (int32_t n = 0; n <= model->input_count; ++n) key += key_part(instance, n).bytes;
  for (int32_t i = 0; i < model->output_count; ++i) {
    const DLTensor *tensor = instance->outputs[i].tensor;
    if (tensor->ndim > 64) return NULL;
    bytes += (size_t)tensor->ndim * sizeof(int64_t);
    bytes += (size_t)ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape);
  }
  bytes += key;
  entry *new = bytes <= most ? malloc(bytes) : NULL;
  if (!new) return NULL;
  *new = (entry){.model = model, .hash = hash, .key_bytes = key, .bytes = bytes};
  char *to = new->data;
  for (int32_t n = 0; n <= model->input_count; ++n) {
    const part own = key_part(instance, n);
    if (own.bytes) memcpy(to, own.data, own.bytes);
    to += own.bytes;
  }
  for (int32_t i = 0; i < model->output_count; ++i) {
    const DLTensor *tensor = instance->outputs[i].tensor;
    const size_t sizes = (size_t)tensor->ndim * sizeof(int64_t);
    const size_t elements = (size_t)ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape);
    if (sizes) memcpy(to, tensor->shape, sizes);
    if (elements) memcpy(to + sizes, (const char *)tensor->data + tensor->byte_offset, elements);
    to += sizes + elements;
  }
  return new;
}

void ts_cache_keep(ts_cache *cache, const ts_instance *instance, uint64_t hash) {
  entry *new = made(instance, hash, cache->limit - own_bytes(cache));
  if (!new) return; /* larger than all of the cache, or no memory: the next call computes, too */
  pthread_mutex_lock(&cache->lock);
  if (find(cache, instance, hash)) { /* another instance was faster */
    pthread_mutex_unlock(&cache->lock);
    free(new);
    return;
  }
  while (cache->oldest && cache->used + new->bytes > cache->limit) evict(cache);
  if (cache->used + new->bytes > cache->limit) {
    free(new);
  } else {
    entry **bucket = bucket_of(cache, hash);
    new->chained = *bucket;
    *bucket = new;
    link_newest(cache, new);
    cache->used += new->bytes;
    ++cache->entries;
  }
  pthread_mutex_unlock(&cache->lock);
}
