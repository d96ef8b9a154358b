/* Modules: cubins and PTX are read as what they are. */
#define _GNU_SOURCE
#include "state.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static CUfunction new_function(CUmodule module, const char *name, size_t length) {
  CUfunction function = calloc(1, sizeof *function);
  snprintf(function->name, sizeof function->name, "%.*s", (int)length, name);
  function->shared_limit = USUAL_SHARED;
  function->file = module->file;
  function->next = module->functions;
  module->functions = function;
  return function;
}

static void read_parameters(CUfunction function, const uint8_t *at, const uint8_t *end) {
  while (at + 4 <= end) {
    const int format = at[0], attribute = at[1], value = READ(uint16_t, at + 2);
    at += 4;
    if (format != 4) continue;
    if (attribute == PARAMETER) {
      const int ordinal = READ(uint16_t, at + 4);
      if (ordinal < MAX_PARAMETERS) function->sizes[ordinal] = (int)(READ(uint32_t, at + 8) >> 18);
      if (ordinal >= function->count) function->count = ordinal + 1;
    }
    at += value;
  }
}

static CUresult load_cubin(CUmodule module, const uint8_t *image) {
  if (READ(uint16_t, image + 18) != MACHINE) return CUDA_ERROR_INVALID_IMAGE;
  const uint32_t flags = READ(uint32_t, image + 48);
  const int architecture = (int)((image[7] == NEW_ABI ? flags >> 8 : flags) & 255);
  const int fits = architecture < 90 ? architecture / 10 == fake.capability / 10 && architecture <= fake.capability
                                     : architecture == fake.capability;
  if (!fits) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  const uint8_t *sections = image + READ(uint64_t, image + 0x28);
  const int entry = READ(uint16_t, image + 0x3a), count = READ(uint16_t, image + 0x3c);
  const int names = READ(uint16_t, image + 0x3e);
  const char *strings = (const char *)image + READ(uint64_t, sections + names * entry + 24);
  for (int i = 0; i < count; ++i) {
    const uint8_t *section = sections + i * entry;
    const char *name = strings + READ(uint32_t, section);
    if (strncmp(name, ".nv.info.", 9)) continue;
    const uint8_t *content = image + READ(uint64_t, section + 24);
    read_parameters(new_function(module, name + 9, strlen(name + 9)), content,
                    content + READ(uint64_t, section + 32));
  }
  return 0;
}

static CUresult load_ptx(CUmodule module, const char *text) {
  const char *target = strstr(text, ".target sm_"), *entry = strstr(text, ".entry ");
  if (!target || !entry) return CUDA_ERROR_INVALID_IMAGE;
  if (atoi(target + 11) > fake.capability) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  entry += 7;
  CUfunction function = new_function(module, entry, strcspn(entry, "("));
  const char *end = strchr(entry, ')');
  for (const char *at = strstr(entry, ".param "); at && at < end; at = strstr(at + 1, ".param "))
    if (function->count < MAX_PARAMETERS) function->sizes[function->count++] = 8;
  module->ptx = 1;
  return 0;
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
  BEGIN(1);
  for (CUfunction next, at = module->functions; at; at = next) {
    next = at->next;
    free(at);
  }
  free(module);
  object(-1);
  return 0;
}
EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  BEGIN(1);
  Dl_info info;
  CUmodule made = calloc(1, sizeof *made);
  made->file = dladdr(image, &info) && info.dli_fname ? info.dli_fname : "";
  const int elf = !memcmp(image, "\177ELF", 4);
  const CUresult error = elf ? load_cubin(made, image) : load_ptx(made, image);
  object(1);
  if (error) cuModuleUnload(made);
  else *module = made;
  return error;
}
EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  BEGIN(1);
  for (CUfunction at = module->functions; at; at = at->next)
    if (!strcmp(at->name, name)) {
      *function = at;
      return 0;
    }
  return NOT_FOUND;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  BEGIN(1);
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value > fake.shared_optin)
    return INVALID_VALUE;
  function->shared_limit = value;
  return 0;
}
