/* A libfido2.so.1 in front of the real one: it lists the tokens that a directory names.
 *
 * The real one asks udev for HID devices, which a kernel without /dev/uhid does not have for programs.
 * All other functions are the real library's, which this one is linked to. See fido_dev_info_manifest(3).
 */
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>

int fido_dev_info_set(void *list, size_t place, const char *path, const char *manufacturer,
                      const char *product, const void *io, const void *transport);

/* Has to be there; whoever opens a token by its path has the library's own. */
static void *const io[4];

static int device_of(const char *name, char *device) {
        char path[512];
        snprintf(path, sizeof path, DIRECTORY "/%s/uevent", name);
        FILE *told = fopen(path, "r");
        if (!told)
                return 0;
        int found = fscanf(told, "DEVNAME=%63s", device);
        fclose(told);
        return found == 1;
}

int fido_dev_info_manifest(void *list, size_t room, size_t *count) {
        char name[64], path[80];
        *count = 0;
        DIR *all = opendir(DIRECTORY);
        if (!all)
                return 0;
        for (struct dirent *entry; *count < room && (entry = readdir(all));) {
                if (entry->d_name[0] == '.' || !device_of(entry->d_name, name))
                        continue;
                snprintf(path, sizeof path, "/dev/%s", name);
                if (!fido_dev_info_set(list, *count, path, "Virtual", "Token", io, NULL))
                        ++*count;
        }
        closedir(all);
        return 0;
}
