/*
 * macOS's rules for shared memory and sockets, enforced on Linux.
 *
 * Preloaded into a program (LD_PRELOAD) this library stands between it and the C library and refuses what macOS
 * refuses, with macOS's errno.  What macOS merely does differently (kqueue, 16 KiB pages, 8 KiB socket buffers, where
 * control data splits a stream) is not here.  Build and use it with macos_shim.py.
 *
 * Nothing is remembered between calls.  Which fd is POSIX shared memory is asked of the kernel each time: glibc keeps
 * those objects as regular files on one file system, and whether an object has had its one ftruncate shows in its
 * size.  So the rules also hold for fds that were duplicated, inherited or received from another process; and any
 * other file somebody puts into /dev/shm obeys them too.
 *
 * The functions below have the same names, types and meanings as in the C library; each says only what it refuses.
 */
#define _GNU_SOURCE
/* Off: its inline read() and friends would collide with ours. */
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define MAC_SHM_NAME_MAX 31 /* PSHMNAMLEN, the leading slash included */
#define MAC_SUN_PATH_SIZE 104

/* The C library's own function of this name. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int refuse(int number)
{
    errno = number;
    return -1;
}

static int is_shm(int fd)
{
    int saved = errno;
    struct stat file, folder;
    int yes = fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && stat("/dev/shm", &folder) == 0 &&
              file.st_dev == folder.st_dev;

    errno = saved;
    return yes;
}

/* --- shared memory --------------------------------------------------------------------------------------------- */

int shm_open(const char *name, int flags, mode_t mode)
{
    if (strlen(name) > MAC_SHM_NAME_MAX)
        return refuse(ENAMETOOLONG);
    if (flags & O_TRUNC) /* an object is sized once, and this would size it again */
        return refuse(EINVAL);
    return NEXT(shm_open)(name, flags, mode);
}

/* The size may be set while the object has none; never again. */
static int may_truncate(int fd)
{
    struct stat file;

    return !is_shm(fd) || (fstat(fd, &file) == 0 && file.st_size == 0);
}

int ftruncate(int fd, off_t length)
{
    return may_truncate(fd) ? NEXT(ftruncate)(fd, length) : refuse(EINVAL);
}

int ftruncate64(int fd, off64_t length)
{
    return may_truncate(fd) ? NEXT(ftruncate64)(fd, length) : refuse(EINVAL);
}

int fchmod(int fd, mode_t mode)
{
    return is_shm(fd) ? refuse(EINVAL) : NEXT(fchmod)(fd, mode);
}

/* Shared memory is for mmap: no reading, writing or seeking. */

ssize_t read(int fd, void *data, size_t size)
{
    return is_shm(fd) ? refuse(ENXIO) : NEXT(read)(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return is_shm(fd) ? refuse(ENXIO) : NEXT(write)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(pread)(fd, data, size, offset);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(pread64)(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(pwrite)(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(pwrite64)(fd, data, size, offset);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(lseek)(fd, offset, whence);
}

off64_t lseek64(int fd, off64_t offset, int whence)
{
    return is_shm(fd) ? refuse(ESPIPE) : NEXT(lseek64)(fd, offset, whence);
}

static int fcntl_error(int fd, int command, long argument)
{
    switch (command) {
    case F_ADD_SEALS: /* Linux (and FreeBSD) only */
    case F_GET_SEALS:
    case F_SETPIPE_SZ:
    case F_GETPIPE_SZ:
        return EINVAL;
    case F_SETFL:
        return (argument & O_NONBLOCK) && is_shm(fd) ? ENOTTY : 0;
    default:
        return 0;
    }
}

/* The third argument is an int, a pointer or absent; one register holds it in any case. */
int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);

    int error = fcntl_error(fd, command, argument);
    return error ? refuse(error) : NEXT(fcntl)(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);

    int error = fcntl_error(fd, command, argument);
    return error ? refuse(error) : NEXT(fcntl64)(fd, command, argument);
}

/* FIONBIO is how CPython's os.set_blocking asks for O_NONBLOCK. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);

    return request == FIONBIO && is_shm(fd) ? refuse(ENOTTY) : NEXT(ioctl)(fd, request, argument);
}

int memfd_create(const char *name, unsigned int flags)
{
    (void)name, (void)flags;
    return refuse(ENOSYS);
}

int eventfd(unsigned int value, int flags)
{
    (void)value, (void)flags;
    return refuse(ENOSYS);
}

/* --- Unix sockets ---------------------------------------------------------------------------------------------- */

static int bad_address(const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)address;
    size_t size = length - offsetof(struct sockaddr_un, sun_path);

    if (length < sizeof(sa_family_t) || address->sa_family != AF_UNIX)
        return 0;
    if (length <= offsetof(struct sockaddr_un, sun_path) || un->sun_path[0] == '\0')
        return 1; /* unnamed, or abstract: names outside the file system are Linux's own */
    return strnlen(un->sun_path, size) >= MAC_SUN_PATH_SIZE;
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    return bad_address(address, length) ? refuse(EINVAL) : NEXT(bind)(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return bad_address(address, length) ? refuse(EINVAL) : NEXT(connect)(fd, address, length);
}

static int is_unix(int domain)
{
    return domain == AF_UNIX;
}

/* The flags SOCK_CLOEXEC and SOCK_NONBLOCK stay allowed: CPython was built to use them here. */
static int is_seqpacket(int type)
{
    return (type & 0xf) == SOCK_SEQPACKET;
}

int socket(int domain, int type, int protocol)
{
    return is_unix(domain) && is_seqpacket(type) ? refuse(EPROTONOSUPPORT) : NEXT(socket)(domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
    return is_unix(domain) && is_seqpacket(type) ? refuse(EPROTONOSUPPORT)
                                                 : NEXT(socketpair)(domain, type, protocol, fds);
}

static size_t data_size(const struct msghdr *message)
{
    size_t size = 0;

    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    return size;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (message->msg_control != NULL && message->msg_controllen == 0)
        return refuse(EINVAL);
    if (message->msg_controllen != 0 && data_size(message) == 0) /* fds travel with data or not at all */
        return refuse(EINVAL);
    return NEXT(sendmsg)(fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    return flags & MSG_CMSG_CLOEXEC ? refuse(EINVAL) : NEXT(recvmsg)(fd, message, flags);
}
