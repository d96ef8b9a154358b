/* Layers of three networks of MLPerf Tiny by CMSIS-NN's functions for signed bytes, and the
 * instructions that each takes: SysTick, under QEMU's -icount, counts TICK_HUNDREDTHS / 100
 * nanoseconds, each an instruction. Built by cmsis_nn.py. Data and weights are any numbers: no
 * instruction depends on them. */
#include "arm_nnfunctions.h"
#include <stdio.h>

void say(const char *text);

#define SYSTICK ((volatile uint32_t *)0xE000E010)

static int8_t data[64 << 10], result[64 << 10], weights[80 << 10];
_Alignas(16) static int8_t buffer[64 << 10];
static int32_t bias[640], factors[128], shifts[128];
static cmsis_nn_context context = {buffer, sizeof buffer};
static const cmsis_nn_per_channel_quant_params scales = {factors, shifts};
static uint32_t begun, total;

static void begin_count(void) {
  SYSTICK[2] = 0;
  begun = SYSTICK[2];
}

static void end_count(const char *name, uint32_t products, int status) {
  const uint32_t ticks = (begun - SYSTICK[2]) & 0xFFFFFF;
  const uint32_t count = (uint32_t)((uint64_t)ticks * TICK_HUNDREDTHS / 100);
  char text[80];
  total += count;
  snprintf(text, sizeof text, "%s %u %u %s\n", name, (unsigned)products, (unsigned)count,
           status ? "failed" : "");
  say(text);
}

static void end_network(const char *name) {
  char text[80];
  snprintf(text, sizeof text, "%s %u\n", name, (unsigned)total);
  say(text);
  total = 0;
}

/* A convolution of high x wide pixels. */
struct conv {
  const char *name;
  int high, wide, channels, filters, window_high, window_wide, stride, pad_high, pad_wide;
};

static void conv(struct conv c) {
  const int high = (c.high + c.stride - 1) / c.stride, wide = (c.wide + c.stride - 1) / c.stride;
  const cmsis_nn_conv_params params = {
      .input_offset = 128, .output_offset = -128, .stride = {c.stride, c.stride},
      .padding = {c.pad_wide, c.pad_high}, .dilation = {1, 1}, .activation = {-128, 127}};
  const cmsis_nn_dims in = {1, c.high, c.wide, c.channels}, out = {1, high, wide, c.filters};
  const cmsis_nn_dims filter = {c.filters, c.window_high, c.window_wide, c.channels};
  const cmsis_nn_dims biases = {1, 1, 1, c.filters};
  begin_count();
  const int status = arm_convolve_wrapper_s8(
      &context, &params, &scales, &in, data, &filter, weights, &biases, bias, &out, result);
  const int depth = c.window_high * c.window_wide * c.channels;
  end_count(c.name, (uint32_t)(high * wide * c.filters * depth), status);
}

static void depthwise(const char *name, int high, int wide, int channels) {
  const cmsis_nn_dw_conv_params params = {
      .input_offset = 128, .output_offset = -128, .ch_mult = 1, .stride = {1, 1},
      .padding = {1, 1}, .dilation = {1, 1}, .activation = {-128, 127}};
  const cmsis_nn_dims in = {1, high, wide, channels}, filter = {1, 3, 3, channels};
  const cmsis_nn_dims biases = {1, 1, 1, channels};
  begin_count();
  const int status = arm_depthwise_conv_wrapper_s8(
      &context, &params, &scales, &in, data, &filter, weights, &biases, bias, &in, result);
  end_count(name, (uint32_t)(high * wide * channels * 9), status);
}

static void dense(const char *name, int depth, int columns) {
  const cmsis_nn_fc_params params = {.input_offset = 128, .activation = {-128, 127}};
  const cmsis_nn_per_tensor_quant_params scale = {1 << 30, -6};
  const cmsis_nn_dims in = {1, 1, 1, depth}, filter = {depth, 1, 1, columns};
  const cmsis_nn_dims out = {1, 1, 1, columns};
  arm_vector_sum_s8((int32_t *)buffer, depth, columns, weights, 128, 0, bias);
  begin_count();
  const int status = arm_fully_connected_s8(&context, &params, &scale, &in, data, &filter, weights,
                                            &out, bias, &out, result);
  end_count(name, (uint32_t)(depth * columns), status);
}

static void mean(const char *name, int high, int wide, int channels) {
  const cmsis_nn_pool_params params = {.stride = {wide, high}, .activation = {-128, 127}};
  const cmsis_nn_dims in = {1, high, wide, channels}, window = {1, high, wide, 1};
  const cmsis_nn_dims out = {1, 1, 1, channels};
  begin_count();
  end_count(name, 0, arm_avgpool_s8(&context, &params, &in, data, &window, &out, result));
}

static void add(const char *name, int size) {
  begin_count();
  end_count(name, 0,
            arm_elementwise_add_s8(data, data + size, 128, 1 << 30, 0, 128, 1 << 30, 0, 20, result,
                                   -128, 1 << 30, -19, -128, 127, size));
}

int main(void) {
  for (int i = 0; i < 128; ++i) bias[i] = i, factors[i] = 1 << 30, shifts[i] = -7;
  SYSTICK[1] = 0xFFFFFF;
  SYSTICK[0] = 5;
  conv((struct conv){"conv", 49, 10, 1, 64, 10, 4, 2, 4, 1});
  for (int i = 0; i < 4; ++i) {
    depthwise("depthwise", 25, 5, 64);
    conv((struct conv){"pointwise", 25, 5, 64, 64, 1, 1, 1, 0, 0});
  }
  mean("mean", 25, 5, 64);
  dense("dense", 64, 12);
  end_network("kws");
  conv((struct conv){"conv", 32, 32, 3, 16, 3, 3, 1, 1, 1});
  for (int i = 0; i < 2; ++i) conv((struct conv){"conv", 32, 32, 16, 16, 3, 3, 1, 1, 1});
  add("add", 16 << 10);
  conv((struct conv){"conv", 32, 32, 16, 32, 3, 3, 2, 0, 0});
  conv((struct conv){"conv", 16, 16, 32, 32, 3, 3, 1, 1, 1});
  conv((struct conv){"pointwise", 32, 32, 16, 32, 1, 1, 2, 0, 0});
  add("add", 8 << 10);
  conv((struct conv){"conv", 16, 16, 32, 64, 3, 3, 2, 0, 0});
  conv((struct conv){"conv", 8, 8, 64, 64, 3, 3, 1, 1, 1});
  conv((struct conv){"pointwise", 16, 16, 32, 64, 1, 1, 2, 0, 0});
  add("add", 4 << 10);
  mean("mean", 8, 8, 64);
  dense("dense", 64, 10);
  end_network("ic");
  static const int sizes[] = {640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640};
  for (unsigned i = 1; i < sizeof sizes / sizeof *sizes; ++i) dense("dense", sizes[i - 1], sizes[i]);
  end_network("ad");
  return 0;
}
