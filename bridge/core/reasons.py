# SPDX-License-Identifier: Apache-2.0
"""Reason codes, one line each: the names in logs, audit records, metrics labels and the docs."""

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """The closed set of reasons; the value is the stable code, `.text` the line for an operator."""

    text: str

    def __new__(cls, code: str, text: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    # Listener: messages and attachment rows that are not an extend (skipped, acknowledged).
    OTHER_EVENT = "other_event", "a notification other than volume.resize.end"
    NOT_ATTACHED = "not_attached", "the volume is not attached to any server"
    NO_SERVER = "no_server", "an attachment row without instance_uuid (Glance store, bare metal)"
    ROW_NOT_ATTACHED = (
        "row_not_attached",
        "an attachment row that is reserved, attaching, detaching or deleted",
    )
    SAME_SERVER = "same_server", "another attachment row of a server that already has its event"
    BAD_ROW = "bad_row", "an attachment row that is not a JSON object, or has no valid server id"

    # Listener: messages that cannot be read (kept raw in the unreadable lane).
    NOT_UTF8 = "not_utf8", "the body is not UTF-8"
    NOT_JSON = "not_json", "the body, or the message inside the envelope, is not JSON"
    NOT_AN_OBJECT = "not_an_object", "the body, or the message inside the envelope, is JSON but not an object"
    UNKNOWN_ENVELOPE = "unknown_envelope", "an oslo.messaging envelope of an unknown version"
    TOO_LARGE = "too_large", "the body is larger than [listener] max_message_bytes"
    TOO_DEEP = "too_deep", "the JSON is nested too deeply to be a notification"
    PARSER_FAILED = "parser_failed", "the listener's parser failed on this message: please report this as a bug"

    # Listener: a volume.resize.end that cannot be acted on (scrubbed, parked).
    BAD_PAYLOAD = "bad_payload", "a volume.resize.end whose payload is not a JSON object"
    BAD_VOLUME_ID = "bad_volume_id", "a volume.resize.end without a valid volume_id"
    BAD_ATTACHMENTS = "bad_attachments", "a volume.resize.end whose volume_attachment is not a list"
    TOO_MANY_ROWS = "too_many_rows", "a volume.resize.end with more attachment rows than [listener] max_rows"

    # Listener: answers of the endpoint.
    DELIVERED = "delivered", "the endpoint accepted the event (code 200)"
    EVENT_BAD = "event_bad", "the endpoint answered 400 for this event"
    EVENT_UNKNOWN_SERVER = "event_unknown_server", "the endpoint does not know the server (code 404)"
    EVENT_NO_HOST = "event_no_host", "the server is not on any host (code 422)"
    EVENT_NO_CODE = "event_no_code", "the endpoint's answer lacks this event, or its code"
    EVENT_OTHER_CODE = (
        "event_other_code",
        "the endpoint answered this event with a code that the API does not define",
    )
    REQUEST_BAD = "request_bad", "the endpoint answered 400 for a request with this event alone"
    REQUEST_FAILED = "request_failed", "the endpoint answered 500 for a request with this event alone"
    REQUEST_TOO_LARGE = "request_too_large", "the endpoint answered 413 for a request with this event alone"
    BATCH_REFUSED = "batch_refused", "the endpoint refused the batch; it is sent again in halves"
    ALL_HIDDEN = (
        "all_hidden",
        "the endpoint answers 404 for every server: our user's role may not see other projects' servers",
    )
    UNAUTHORIZED = (
        "unauthorized",
        "401, also with a new token: Keystone or the endpoint refuses the configured user",
    )
    NO_ENDPOINT = (
        "no_endpoint",
        "Keystone's catalogue has no such endpoint: set [endpoint] endpoint_override or region_name",
    )
    FORBIDDEN = (
        "forbidden",
        "the endpoint answered 403: the user lacks the role service or admin, or a policy file forbids the call",
    )
    WRONG_URL = "wrong_url", "the endpoint's URL answers 404 or 405: it is not the compute API"
    WRONG_VERSION = "wrong_version", "the endpoint answered 406: it does not support compute 2.51"
    UNEXPECTED_STATUS = "unexpected_status", "the endpoint answered with a status that the API does not define"
    TOLD_TO_WAIT = "told_to_wait", "the endpoint asked to wait (429 or 503 with Retry-After)"
    UNAVAILABLE = "unavailable", "the endpoint answered 502, 503 or 504"
    UNREACHABLE = "unreachable", "the endpoint cannot be connected to, or TLS failed"
    TIMED_OUT = "timed_out", "the endpoint did not answer in time"
    BAD_ANSWER = "bad_answer", "the endpoint answered 200 or 207, but its body is not a list of events in JSON"
    NO_SLOW_LANE = "no_slow_lane", "parked instead of tried again later, because a bus in memory has no slow lane"
    NOT_OUR_FORM = (
        "not_our_form",
        "a message in the slow lane that the listener did not write: another program publishes there",
    )

    # API: events that got another code than 200.
    UNKNOWN_SERVER = "unknown_server", "no host agent has ever reported the server (code 404)"
    SERVER_NO_HOST = "server_no_host", "the server is known, but is not on any host now (code 422)"
    NO_TAG = "no_tag", "an event without a tag, so without a volume (code 400)"
    TAG_NO_VOLUME = "tag_no_volume", "an event whose tag is not a volume id (code 400)"
    NOT_OURS = "not_ours", "an event that Nova handles and the bridge does not (code 400)"

    # Engine.
    NO_HOST = "no_host", "no host reports the server"
    HOST_DOWN = "host_down", "the server's host sends no heartbeats; the order is sent when its agent is back"
    UNDELIVERABLE = "undeliverable", "the broker has no queue for the host agent"
    CAST_FAILED = "cast_failed", "the broker did not accept the order for the host agent"
    CINDER_UNREACHABLE = "cinder_unreachable", "Cinder cannot be reached or answered 5xx"
    CINDER_TIMED_OUT = "cinder_timed_out", "Cinder, or Keystone before it, did not answer in time"
    CINDER_UNAUTHORIZED = "cinder_unauthorized", "Keystone refuses the user of [cinder]"
    CINDER_NO_ENDPOINT = "cinder_no_endpoint", "Keystone's catalogue has no such endpoint for [cinder]"
    CINDER_WRONG_URL = "cinder_wrong_url", "the URL of [cinder] is not Cinder's API, version 3"
    CINDER_WRONG_VERSION = "cinder_wrong_version", "Cinder answered 406: it does not support volume 3.27"
    CINDER_REFUSED = (
        "cinder_refused",
        "Cinder refuses: the user of [cinder] may not read this volume, or the volumes of every project",
    )
    CINDER_BAD_ANSWER = "cinder_bad_answer", "Cinder's answer is not a volume"
    NOVA_UNREACHABLE = "nova_unreachable", "Nova cannot be reached or answered 5xx"
    NOVA_TIMED_OUT = "nova_timed_out", "Nova, or Keystone before it, did not answer in time"
    NOVA_UNAUTHORIZED = "nova_unauthorized", "Keystone refuses the user of [nova]"
    NOVA_NO_ENDPOINT = "nova_no_endpoint", "Keystone's catalogue has no such endpoint for [nova]"
    NOVA_WRONG_URL = "nova_wrong_url", "the URL of [nova] is not Nova's API, version 2.1"
    NOVA_WRONG_VERSION = "nova_wrong_version", "Nova answered 406: it does not support compute 2.69"
    NOVA_REFUSED = (
        "nova_refused",
        "Nova does not show servers' hosts to the user of [nova]: the user lacks the role admin",
    )
    NOVA_CELL_DOWN = "nova_cell_down", "the server's cell is down: Nova knows only the server's id"
    NOVA_BAD_ANSWER = "nova_bad_answer", "Nova's answer is not a server"
    SERVER_DELETED = (
        "server_deleted",
        "Nova does not know the server any more, but in Cinder the volume is still attached to it",
    )
    VOLUME_EXTENDING = "volume_extending", "Cinder is still extending the volume"
    NOT_REPORTED = "not_reported", "no report came in time; the order is sent again"
    NEWER_GENERATION = "newer_generation", "another extend of the same disk arrived meanwhile"
    HOST_NOT_ITSELF = "host_not_itself", "the host sent a message in the name of another host"
    HOST_NOT_ORDERED = "host_not_ordered", "the host reported on an order that it did not get"
    HOST_UNPROVED = (
        "host_unproved",
        "a message in the host's name, but the broker did not verify that this host sent it",
    )
    HOST_SHRANK = "host_shrank", "most of the host's servers are missing in its inventory at once"
    HOST_TOO_MUCH = "host_too_much", "the host's message cannot be read, or exceeds the limits of a message"
    HOSTS_DISAGREE = "hosts_disagree", "several hosts claim one running guest, and Cinder does not say which has it"
    HOST_NOT_ATTACHED = "host_not_attached", "the host claims a running guest that Cinder has attached to another"

    # Reconciliation: the cause of a guest behind its volume, or of an unknown state.
    NOBODY_TOLD = "nobody_told", "the guest sees less than its volume's size and no event came; an extend is opened"
    ON_ITS_WAY = "on_its_way", "an extend is open and in progress"
    NO_AGENT = "no_agent", "no host agent has ever reported from the host that Cinder names"
    DISK_NOT_REPORTED = (
        "disk_not_reported",
        "the host's agent is alive, but does not report this disk of the server",
    )
    SIZE_UNKNOWN = (
        "size_unknown",
        "the host reports the disk, but the hypervisor does not return the size that its guest sees",
    )

    # Host agent.
    SIZE_REACHED = "size_reached", "the guest's disk has the size"
    DOMAIN_ABSENT = "domain_absent", "libvirt does not know the domain"
    DOMAIN_INCOMING = "domain_incoming", "the domain is the incoming side of a migration"
    DISK_ABSENT = "disk_absent", "the domain has no disk with this volume's serial or alias"
    DOMAIN_OFF = "domain_off", "the domain is shut off or crashed"
    DOMAIN_SAVED = "domain_saved", "the guest is saved; it is notified of the size when it is restored"
    SEEN_AT_RESTART = (
        "seen_at_restart",
        "the disk has the size; the guest sees it after a restart, because its bus cannot notify a running guest",
    )
    GUEST_NOT_TOLD = (
        "guest_not_told",
        "the disk has the size, but the guest may not know it; the event is sent to Nova again",
    )
    FIXED_OVERHEAD = (
        "fixed_overhead",
        "the device is smaller than its volume by a fixed amount; the guest has all of the device",
    )
    READ_ONLY = "read_only", "the disk is attached read-only, and QEMU does not resize such a disk"
    CDROM = "cdrom", "the volume is attached as a CD-ROM, which cannot be resized"
    RESIZE_UNSUPPORTED = "resize_unsupported", "the hypervisor's driver of this disk cannot resize it"
    DEVICE_SMALLER = "device_smaller", "after the refresh the host device is still smaller than the volume"
    IMAGE_UNREADABLE = "image_unreadable", "the image's size cannot be read from its storage"
    STORAGE_SILENT = (
        "storage_silent",
        "the storage does not answer: a read was abandoned after [hostagent] storage_limit",
    )
    WOULD_SHRINK = "would_shrink", "the requested size is below the disk's current capacity"
    WRONG_DEVICE = "wrong_device", "the domain's disk is not the device of the connection data"
    OVERLAY_ACTIVE = "overlay_active", "a snapshot's overlay is on top of an encrypted device"
    BLOCK_JOB = "block_job", "a block job uses the disk"
    DOMAIN_JOB = "domain_job", "the guest is being migrated, saved or dumped"
    CANNOT_GROW_DEVICE = "cannot_grow_device", "QEMU: the device under the disk is too small"
    NO_STRATEGY = "no_strategy", "this host cannot extend this volume type"
    BRICK_RAISED = "brick_raised", "os-brick raised an error"
    BRICK_TIMED_OUT = "brick_timed_out", "os-brick did not return in time; its process was killed"
    BRICK_LOCK_HELD = "brick_lock_held", "another process holds os-brick's file lock"
    BRICK_DIED = "brick_died", "the os-brick process died"
    BRICK_NO_SIZE = "brick_no_size", "os-brick returned no size"
    KEY_UNAVAILABLE = (
        "key_unavailable",
        "the key manager does not answer, refuses the host's user, or does not have the key",
    )
    KEY_WRONG = "key_wrong", "the key manager's key does not open the volume"
    HYPERVISOR_RAISED = "libvirt_raised", "the hypervisor (libvirt, QEMU) raised an error"
    HYPERVISOR_TIMED_OUT = (
        "libvirt_timed_out",
        "a call of the hypervisor (libvirt, QEMU) did not return in time",
    )
    HYPERVISOR_DOWN = "libvirt_down", "the hypervisor (libvirt, QEMU) cannot be reached"
    NOT_VERIFIED = "not_verified", "the size read back after the resize is below the target"
    NOVA_NOT_THERE = "nova_not_there", "Nova's host has not extended it; the event is posted to Nova again"
    UNCERTAIN = "uncertain", "an unexpected error; the extend is tried again"
    BAD_ORDER = "bad_order", "an order that could not be read"

    # File systems inside guests ([guest] filesystems).
    FS_FITS = "fs_fits", "the file system has the size of its disk"
    FS_CAN_FOLLOW = "fs_can_follow", "the file system is smaller than its disk, and can be grown"
    FS_GROWN = "fs_grown", "the file system was grown, and the guest's agent reads the new size back"
    FS_NOT_MOUNTED = "fs_not_mounted", "nothing on the disk, or on its last partition, is mounted"
    FS_SEVERAL_PARTITIONS = (
        "fs_several_partitions",
        "the disk has several partitions; only a command in the guest can show which is last",
    )
    FS_LAYERS = (
        "fs_layers",
        "LVM or encryption is below the file system; only a command in the guest can show more",
    )
    FS_TYPE = "fs_type", "a file system of this type cannot be grown while it is mounted"
    FS_READ_ONLY = "fs_read_only", "the file system is mounted read-only"
    FS_NOT_LAST = "fs_not_last", "another partition or swap is behind the file system"
    FS_LUKS = "fs_luks", "the disk is encrypted inside the guest: growing it needs a key that only its owner has"
    FS_SEVERAL_VOLUMES = (
        "fs_several_volumes",
        "the volume group has several logical volumes; its owner decides which of them grows",
    )
    FS_NO_FREE_EXTENTS = "fs_no_free_extents", "the free space is smaller than one extent of the volume group"
    FS_LOGICAL_PARTITION = (
        "fs_logical_partition",
        "the last partition is a logical partition inside an extended one",
    )
    FS_MBR_LIMIT = "fs_mbr_limit", "the disk's MBR partition table cannot address more than 2 TiB"
    FS_SIZE_LIMIT = "fs_size_limit", "the file system's own format cannot address the disk's new size"
    FS_ERRORS = "fs_errors", "the file system is marked as faulty; it must be checked before it can grow"
    FS_TABLE = "fs_table", "the partition table is of an unknown kind, or cannot be read"
    FS_LAYOUT = "fs_layout", "the disk has layers that the bridge does not grow"
    FS_DISK_NOT_FOUND = "fs_disk_not_found", "no disk of the guest has the volume's serial"
    FS_SERIAL_AMBIGUOUS = (
        "fs_serial_ambiguous",
        "the serial matches several disks of the guest, or several volumes",
    )
    FS_DISK_STILL_SMALL = "fs_disk_still_small", "the guest's kernel does not show the disk's new size yet"
    FS_NO_AGENT = "fs_no_agent", "the guest has no agent, or its agent is not connected"
    FS_AGENT_SILENT = "fs_agent_silent", "the guest's agent did not answer in time"
    FS_AGENT_FORBIDS = (
        "fs_agent_forbids",
        "the guest's agent does not allow the command; the helper in the guest does not need it",
    )
    FS_AGENT_ERROR = "fs_agent_error", "the guest's agent answered with an error"
    FS_AGENT_BAD_ANSWER = "fs_agent_bad_answer", "the guest's agent gave an answer that cannot be read"
    FS_TOOL_MISSING = "fs_tool_missing", "a tool is not installed in the guest"
    FS_STEP_FAILED = "fs_step_failed", "a command in the guest failed"
    FS_NOT_VERIFIED = "fs_not_verified", "the size read back after the growth is too small"

    # Transport.
    RETURNED = "returned", "the broker has no queue for the message (mandatory return)"
    NACKED = "nacked", "the broker refused the message (nack)"
    BUS_BLOCKED = "bus_blocked", "the broker accepts no messages now, because of its memory or disk space alarm"
    BUS_UNREACHABLE = "bus_unreachable", "our own message bus ([bus] transport_url) cannot be reached"
    NOT_PERMITTED = (
        "not_permitted",
        "our user has no permission to write there in the broker: see etc/rabbitmq/permissions",
    )
