/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that does one thing: it says on COM1 how large its disks are, each time that changes.
 *
 *   GUEST-READY
 *   SIZE vda 1073741824
 *
 * A disk is a virtio-blk device with the legacy I/O window on PCI bus 0 (machine type "pc"); they are named vda, vdb,
 * ... in slot order, which is the order libvirt places them in. The capacity is read from the device's configuration
 * space 50 times a second, with the CPU halted in between: what is printed is what QEMU shows the guest, told or not.
 *
 * Behind a virtio-scsi controller it asks LUN 0 and 1 of target 0 (sda, sdb) by READ CAPACITY, five times a second.
 *
 * A guest whose kernel command line has "panic" tells QEMU's pvpanic device so once it has named its disks.
 *
 * It opens the first port of a virtio-serial device, as a guest does whose agent is up.
 *
 * One with "interrupt" behaves as Linux' drivers do: it reads a size at its start and when the device says that it
 * has changed, by the interrupt status of virtio-blk or the unit attention of a SCSI disk, and not otherwise.
 *
 * One with "hotplug" takes virtio-blk disks that are attached while it runs, under the first free name, and lets go of
 * those that are to be detached. Firmware and ACPI do that in other guests.
 */

#include <stdint.h>

enum {
    COM1 = 0x3F8,
    LINE_STATUS = COM1 + 5,
    TRANSMIT_EMPTY = 0x20,
    PCI_ADDRESS = 0xCF8,
    PCI_DATA = 0xCFC,
    PIC_MASTER_MASK = 0x21,
    PIC_SLAVE_MASK = 0xA1,
    PIT_CHANNEL_0 = 0x40,
    PIT_COMMAND = 0x43,
    TICK_DIVISOR = 23864, /* 1193182 Hz / 23864 = 50 Hz */
    TIMER_VECTOR = 8,     /* where the BIOS left IRQ 0 */
    MAX_DISKS = 26,
    STATUS = 0x12, /* of the driver, in the same header */
    INTERRUPT_STATUS = 0x13, /* reading it takes it back */
    CONFIG_CHANGED = 2,
    CAPACITY_LOW = 0x14, /* legacy virtio header without MSI-X: the device's own registers begin here */
    CAPACITY_HIGH = 0x18,
    PANIC = 0x505,
    MULTIBOOT_CMDLINE = 4, /* bit of the flags; the pointer lies 16 bytes behind them */
    PLUGGED = 0xAE00,      /* QEMU's ACPI hotplug of machine type "pc", a bit a slot; reading it takes it back */
    UNPLUG_WANTED = 0xAE04,
    EJECT = 0xAE08,
    FREE_PORTS = 0xE000, /* above those the firmware gives out; 256 a slot, of which a legacy window takes 128 */
};

static const uint32_t VIRTIO_BLK = 0x10011AF4; /* device 1001, vendor 1AF4 */

struct gate {
    uint16_t low, selector;
    uint8_t zero, flags;
    uint16_t high;
} __attribute__((packed));

struct table {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

struct disk {
    uint16_t port; /* 0: the name is free */
    uint32_t slot;
    uint64_t said; /* bytes last printed */
};

extern void on_timer(void);

static struct gate gates[TIMER_VECTOR + 1];
static struct disk disks[MAX_DISKS];
static int disk_count, on_interrupt;

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put(char c)
{
    while (!(inb(LINE_STATUS) & TRANSMIT_EMPTY))
        ;
    outb(COM1, (uint8_t)c);
}

static void say(const char *text)
{
    while (*text)
        put(*text++);
}

/* Decimal by subtraction: a 64-bit division would need libgcc. */
static void say_number(uint64_t number)
{
    static const uint64_t powers[] = {
        10000000000000000000ULL, 1000000000000000000ULL, 100000000000000000ULL, 10000000000000000ULL,
        1000000000000000ULL,     100000000000000ULL,     10000000000000ULL,     1000000000000ULL,
        100000000000ULL,         10000000000ULL,         1000000000ULL,         100000000ULL,
        10000000ULL,             1000000ULL,             100000ULL,             10000ULL,
        1000ULL,                 100ULL,                 10ULL,                 1ULL,
    };
    int begun = 0;
    for (unsigned i = 0; i < sizeof powers / sizeof *powers; i++) {
        char digit = '0';
        while (number >= powers[i]) {
            number -= powers[i];
            digit++;
        }
        begun |= digit != '0' || powers[i] == 1;
        if (begun)
            put(digit);
    }
}

static uint32_t pci_read(uint32_t slot, uint32_t function, uint32_t reg)
{
    outl(PCI_ADDRESS, 0x80000000U | slot << 11 | function << 8 | reg);
    return inl(PCI_DATA);
}

static void take_disk(struct disk *disk, uint32_t slot, uint32_t function)
{
    uint32_t command = pci_read(slot, function, 0x04);
    outl(PCI_DATA, command | 1); /* I/O space on */
    disk->port = (uint16_t)(pci_read(slot, function, 0x10) & ~3U);
    disk->slot = slot;
    disk->said = ~0ULL;
}

static void find_disks(void)
{
    for (uint32_t slot = 0; slot < 32; slot++)
        for (uint32_t function = 0; function < 8 && disk_count < MAX_DISKS; function++)
            if (pci_read(slot, function, 0x00) == VIRTIO_BLK)
                take_disk(&disks[disk_count++], slot, function);
}

static void start_driving(const struct disk *disk)
{
    outb(disk->port + STATUS, 1 | 2 | 4); /* seen, a driver, ready: from now on it is interrupted */
}

static void plug(uint32_t slot)
{
    int free = 0;
    while (free < disk_count && disks[free].port)
        free++;
    if (pci_read(slot, 0, 0x00) != VIRTIO_BLK || free == MAX_DISKS)
        return;
    pci_read(slot, 0, 0x10);
    outl(PCI_DATA, FREE_PORTS + 0x100 * slot);
    take_disk(&disks[free], slot, 0);
    start_driving(&disks[free]);
    if (free == disk_count)
        disk_count++;
}

static void unplug(uint32_t slot)
{
    for (int i = 0; i < disk_count; i++)
        if (disks[i].slot == slot)
            disks[i].port = 0;
    outl(EJECT, 1U << slot);
}

static void follow_plugs(void)
{
    uint32_t plugged = inl(PLUGGED), leaving = inl(UNPLUG_WANTED);
    for (uint32_t slot = 0; slot < 32; slot++) {
        if (leaving >> slot & 1)
            unplug(slot);
        if (plugged >> slot & 1)
            plug(slot);
    }
}

static void start_ticking(void)
{
    uint32_t handler = (uint32_t)on_timer;
    struct table table = {.limit = sizeof gates - 1, .base = (uint32_t)gates};
    gates[TIMER_VECTOR] = (struct gate){
        .low = (uint16_t)handler, .selector = 0x08, .flags = 0x8E, .high = (uint16_t)(handler >> 16)};
    __asm__ volatile("lidt %0" : : "m"(table));
    outb(PIC_MASTER_MASK, 0xFE);
    outb(PIC_SLAVE_MASK, 0xFF);
    outb(COM1 + 1, 0); /* no serial interrupts */
    outb(PIT_COMMAND, 0x34);
    outb(PIT_CHANNEL_0, TICK_DIVISOR & 0xFF);
    outb(PIT_CHANNEL_0, TICK_DIVISOR >> 8);
}

static uint64_t capacity(const struct disk *disk)
{
    uint32_t low, high;
    do { /* the two halves must belong together */
        high = inl(disk->port + CAPACITY_HIGH);
        low = inl(disk->port + CAPACITY_LOW);
    } while (high != inl(disk->port + CAPACITY_HIGH));
    return ((uint64_t)high << 32 | low) * 512;
}

#include "scsi.h"
#include "agent_port.h"

static int has_word(const uint32_t *multiboot, const char *word)
{
    if (!(multiboot[0] & MULTIBOOT_CMDLINE))
        return 0;
    for (const char *text = (const char *)multiboot[4]; *text; text++) {
        int same = 0;
        while (word[same] && text[same] == word[same])
            same++;
        if (!word[same])
            return 1;
    }
    return 0;
}

static void say_size(char bus, int number, uint64_t size)
{
    say("SIZE ");
    put(bus);
    put('d');
    put((char)('a' + number));
    put(' ');
    say_number(size);
    put('\n');
}

void watch_disks(const uint32_t *multiboot)
{
    int panic = has_word(multiboot, "panic"), hotplug = has_word(multiboot, "hotplug");
    on_interrupt = has_word(multiboot, "interrupt");
    uint64_t said_scsi[LUNS] = {0};
    unsigned ticks = 0;
    start_ticking();
    find_disks();
    find_scsi();
    find_agent_port();
    say("GUEST-READY\n");
    for (int i = 0; i < disk_count; i++)
        start_driving(&disks[i]);
    for (;;) {
        if (hotplug)
            follow_plugs();
        for (int i = 0; i < disk_count; i++) {
            if (!disks[i].port)
                continue;
            int changed = inb(disks[i].port + INTERRUPT_STATUS) & CONFIG_CHANGED;
            if (on_interrupt && disks[i].said != ~0ULL && !changed)
                continue;
            uint64_t now = capacity(&disks[i]);
            if (now == disks[i].said)
                continue;
            disks[i].said = now;
            say_size('v', i, now);
        }
        for (int lun = 0; scsi_found && lun < LUNS && ticks % 10 == 0; lun++) {
            if (on_interrupt && said_scsi[lun] != 0 && !scsi_says_changed(lun))
                continue;
            uint64_t now = scsi_capacity(lun);
            if (now == 0 || now == said_scsi[lun])
                continue;
            said_scsi[lun] = now;
            say_size('s', lun, now);
        }
        if (panic && ticks == 50)
            outb(PANIC, 1);
        ticks++;
        __asm__ volatile("sti\n\thlt\n\tcli");
    }
}
