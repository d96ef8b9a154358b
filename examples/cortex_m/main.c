/* A network in firmware: it reads four handwritten digits and says what they are. */
#include "digits.h"
#include <stdio.h>

void say(const char *text); /* startup.c */

enum { SIDE = 8, CLASSES = DIGITS_SCORES_BYTES / sizeof(float), DARKEST = 16 };

struct sample {
  uint8_t digit, pixels[SIDE * SIDE];
};
static const struct sample samples[] = {
    {9,
     {0, 0, 8, 13, 14, 5, 0, 0,
      0, 5, 13, 4, 11, 9, 0, 0,
      0, 4, 13, 1, 12, 14, 0, 0,
      0, 0, 8, 14, 11, 12, 4, 0,
      0, 0, 0, 0, 0, 7, 8, 0,
      0, 0, 0, 0, 0, 4, 8, 0,
      0, 0, 2, 2, 0, 11, 7, 0,
      0, 0, 8, 16, 16, 13, 2, 0}},
    {2,
     {0, 0, 7, 16, 16, 3, 0, 0,
      0, 7, 16, 9, 14, 7, 0, 0,
      0, 10, 9, 0, 14, 5, 0, 0,
      0, 3, 3, 4, 16, 2, 0, 0,
      0, 0, 0, 12, 11, 0, 0, 0,
      0, 0, 6, 16, 3, 0, 0, 0,
      0, 0, 12, 15, 8, 8, 3, 0,
      0, 0, 10, 16, 16, 16, 9, 0}},
    {0,
     {0, 0, 6, 14, 10, 2, 0, 0,
      0, 0, 15, 15, 13, 15, 3, 0,
      0, 2, 16, 10, 0, 13, 9, 0,
      0, 1, 16, 5, 0, 12, 5, 0,
      0, 0, 16, 3, 0, 13, 6, 0,
      0, 1, 15, 5, 6, 13, 1, 0,
      0, 0, 16, 11, 14, 10, 0, 0,
      0, 0, 7, 16, 11, 1, 0, 0}},
    {5,
     {0, 0, 13, 16, 12, 7, 0, 0,
      0, 4, 16, 15, 12, 12, 3, 0,
      0, 4, 16, 5, 0, 0, 0, 0,
      0, 3, 16, 9, 0, 0, 0, 0,
      0, 0, 15, 16, 2, 0, 0, 0,
      0, 0, 4, 16, 14, 0, 0, 0,
      0, 1, 9, 14, 16, 0, 0, 0,
      0, 1, 13, 16, 10, 0, 0, 0}},
};

/* Scratch memory of a run: board.ld has the section in the core's fast memory. Between two runs it
 * may be used for anything else. */
static uint8_t arena[DIGITS_ARENA_BYTES]
    __attribute__((aligned(DIGITS_ARENA_ALIGNMENT), section(".model_arena")));

static int classify(const uint8_t *pixels) {
  static float image[DIGITS_IMAGE_BYTES / sizeof(float)], scores[CLASSES];
  for (int i = 0; i < SIDE * SIDE; ++i) image[i] = pixels[i] / (float)DARKEST;
  digits_io io = {.image = image, .scores = scores};
  if (digits_run(&io, arena, sizeof arena)) {
    say(io.message);
    return -1;
  }
  int best = 0;
  for (int i = 1; i < CLASSES; ++i)
    if (scores[i] > scores[best]) best = i;
  return best;
}

int main(void) {
  int wrong = 0;
  for (unsigned i = 0; i < sizeof samples / sizeof *samples; ++i) {
    char text[64];
    const int digit = classify(samples[i].pixels);
    snprintf(text, sizeof text, "image %u: a %d, read as %d\n", i, samples[i].digit, digit);
    say(text);
    wrong += digit != samples[i].digit;
  }
  return wrong;
}
