/* Writes numbered, checksummed, signed records to a disk or a file, one after the other, for ever.

     writer PATH NAME

   Record N is the 4096 bytes at N * 4096, written past the page cache and flushed. It goes on after the
   last record that is there already. What is durable is told on the console, which nothing on this
   machine can delay or lose: `+NAME N`. What fails is tried again and again (`-NAME N ERRNO`, once per
   errno), as by a program that nobody has stopped: the storage has to. The format is read by records.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RECORD_BYTES 4096
#define HEAD "volagent record"

static uint32_t crc32(const unsigned char *data, size_t length)
{
	uint32_t crc = ~0u;
	while (length--) {
		crc ^= *data++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
	}
	return ~crc;
}

static void fill(char *record, unsigned long long number, const char *name)
{
	memset(record, (int)('a' + number % 26), RECORD_BYTES);
	int used = snprintf(record, 256, HEAD " %llu %s ", number, name);
	record[used] = ' ';
	uint32_t crc = crc32((unsigned char *)record, RECORD_BYTES - 9);
	snprintf(record + RECORD_BYTES - 9, 9, "%08x", crc);
	record[RECORD_BYTES - 1] = '\n';
}

static int is_record(const char *record, unsigned long long number)
{
	char head[64];
	int used = snprintf(head, sizeof head, HEAD " %llu ", number);
	char sum[9];
	snprintf(sum, sizeof sum, "%08x", crc32((const unsigned char *)record, RECORD_BYTES - 9));
	return !memcmp(record, head, (size_t)used) && !memcmp(record + RECORD_BYTES - 9, sum, 8);
}

static void pause_ms(long ms)
{
	struct timespec pause = {0, ms * 1000000};
	nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	int disk = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	int console = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	char *record = mmap(NULL, RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (disk < 0 || console < 0 || record == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	unsigned long long number = 0;
	while (pread(disk, record, RECORD_BYTES, (off_t)number * RECORD_BYTES) == RECORD_BYTES && is_record(record, number))
		number++;
	for (int told = 0;;) {
		fill(record, number, argv[2]);
		int done = pwrite(disk, record, RECORD_BYTES, (off_t)number * RECORD_BYTES) == RECORD_BYTES && !fdatasync(disk);
		if (done) {
			dprintf(console, "+%s %llu\n", argv[2], number++);
			told = 0;
			pause_ms(10);
		} else {
			if (errno != told) {
				told = errno;
				dprintf(console, "-%s %llu %d\n", argv[2], number, told);
			}
			pause_ms(20);
		}
	}
}
