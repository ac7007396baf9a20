/* A libnvidia-ml.so.1 that plays devices, for tests on machines without a GPU: the real Python binding loads it in place of the driver's.

   NVML_STANDIN names a script of lines `SECONDS DEVICE WHAT VALUE`: from that many seconds after nvmlInit on, WHAT of that device is VALUE
   (in NVML's own units). WHAT: util, used, total, power, counter (mW at which the energy counter runs; 0: there is none), limit, default,
   sm, memory, celsius, reasons, pid. A pid is a number or `engine`: whatever descends from the program that
   started this one and has NVML_STANDIN_ENGINE (fake_worker.py) on its command line, its guardian excepted; a pid of 0 takes back all that
   came before. NVML_STANDIN_NAME is the name of every device. */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DEVICES = 8, LINES = 256, PIDS = 64 };

typedef struct { double at; int device; char what[16], value[32]; } Line;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } Process;

static Line script[LINES];
static int lines, devices[DEVICES], count;
static double began;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int nvmlInitWithFlags(unsigned flags) {
    FILE *file = fopen(getenv("NVML_STANDIN"), "r");
    (void)flags;
    lines = count = 0;
    while (file && lines < LINES) {
        Line *l = &script[lines];
        if (fscanf(file, "%lf %d %15s %31s", &l->at, &l->device, l->what, l->value) != 4) break;
        if (l->device >= count) count = l->device + 1;
        lines++;
    }
    if (file) fclose(file);
    for (int i = 0; i < DEVICES; i++) devices[i] = i;
    began = now();
    return SUCCESS;
}

static unsigned long long value(int *device, const char *what) {
    unsigned long long found = 0;
    for (int i = 0; i < lines; i++)
        if (script[i].device == *device && !strcmp(script[i].what, what) && now() - began >= script[i].at) found = strtoull(script[i].value, NULL, 10);
    return found;
}

static double energy_mj(int *device) {
    double mj = 1e6, until = now() - began;
    for (int i = 0; i < lines; i++) {
        if (script[i].device != *device || strcmp(script[i].what, "counter") || script[i].at > until) continue;
        double end = until;
        for (int j = i + 1; j < lines; j++)
            if (script[j].device == *device && !strcmp(script[j].what, "counter") && script[j].at < end) { end = script[j].at; break; }
        mj += atof(script[i].value) * (end - script[i].at);
    }
    return mj;
}

static const char *setting(const char *name, const char *otherwise) {
    const char *found = getenv(name);
    return found && *found ? found : otherwise;
}

static int parent(int pid) {
    char path[64], text[512], *after;
    int found = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fgets(text, sizeof text, file) && (after = strrchr(text, ')'))) sscanf(after + 1, " %*c %d", &found);
    fclose(file);
    return found;
}

static int is_engine(int pid) {
    char path[64], text[4096];
    int ancestor = pid;
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    for (size_t i = 0; i < length; i++) if (!text[i]) text[i] = ' ';
    text[length] = 0;
    if (!strstr(text, setting("NVML_STANDIN_ENGINE", "fake_worker.py")) || strstr(text, "guardian.py")) return 0;
    while (ancestor > 1 && ancestor != getppid()) ancestor = parent(ancestor);
    return ancestor == getppid();
}

static unsigned pids(int *device, unsigned *out) {
    unsigned n = 0;
    for (int i = 0; i < lines; i++) {
        if (script[i].device != *device || strcmp(script[i].what, "pid") || now() - began < script[i].at) continue;
        if (strcmp(script[i].value, "engine")) {
            unsigned pid = atoi(script[i].value);
            if (pid) out[n++] = pid; else n = 0;
            continue;
        }
        DIR *proc = opendir("/proc");
        for (struct dirent *e; proc && (e = readdir(proc)) && n < PIDS / 2;)
            if (atoi(e->d_name) && is_engine(atoi(e->d_name))) out[n++] = atoi(e->d_name);
        if (proc) closedir(proc);
    }
    return n;
}

int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { return result == NOT_SUPPORTED ? "Not Supported" : "played"; }
int nvmlSystemGetDriverVersion(char *out, unsigned length) { snprintf(out, length, "580.00-standin"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **out) { *out = &devices[index]; return SUCCESS; }
int nvmlDeviceGetName(int *device, char *out, unsigned length) { (void)device; snprintf(out, length, "%s", setting("NVML_STANDIN_NAME", "Stand-in GPU")); return SUCCESS; }
int nvmlDeviceGetPowerUsage(int *device, unsigned *out) { *out = value(device, "power"); return SUCCESS; }
int nvmlDeviceGetTemperature(int *device, int sensor, unsigned *out) { (void)sensor; *out = value(device, "celsius"); return SUCCESS; }
int nvmlDeviceGetClockInfo(int *device, int which, unsigned *out) { *out = value(device, which == 2 ? "memory" : "sm"); return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(int *device, unsigned long long *out) { *out = value(device, "reasons"); return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(int *device, unsigned *out) { *out = value(device, "limit"); return *out ? SUCCESS : NOT_SUPPORTED; }
int nvmlDeviceGetPowerManagementDefaultLimit(int *device, unsigned *out) { *out = value(device, "default"); return *out ? SUCCESS : NOT_SUPPORTED; }

int nvmlDeviceGetUtilizationRates(int *device, Utilisation *out) {
    out->gpu = value(device, "util");
    out->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(int *device, Memory *out) {
    out->total = value(device, "total");
    out->used = value(device, "used");
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(int *device, unsigned long long *out) {
    if (!value(device, "counter")) return NOT_SUPPORTED;
    *out = energy_mj(device);
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(int *device, unsigned *room, Process *out) {
    unsigned found[PIDS], n = pids(device, found), fits = out ? *room : 0;
    *room = n;
    if (n > fits) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < n; i++) out[i] = (Process){found[i], 0, -1, -1};
    return SUCCESS;
}
