# Writes to sysfs. Sourced; POSIX sh.

# sysfs_write PATH VALUE: one write of the whole value; the kernel's answer is the status.
sysfs_write() {
    printf '%s' "$2" | tee "$1" >/dev/null
}
