//! The one list of settings: flags, variables, keys of the file and `config show` all come from it.

/// One setting of `up`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name: `--<key>`, `ZIPLINE_UP_<KEY>`, `<key>` in the table `[up]`.
    pub(crate) key: &'static str,
    /// In the form it is written in.
    pub(crate) default: &'static str,
    /// One line about it.
    pub(crate) about: &'static str,
    /// What stands for its value in the help.
    pub(crate) value_name: &'static str,
}

const fn setting(
    key: &'static str,
    value_name: &'static str,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { key, default, about, value_name }
}

/// Every setting.
pub(crate) const CATALOGUE: &[Setting] = &[
    setting("gateway", "ADDRESS", "127.0.0.1:8080", "Where functions are reached from outside"),
    setting("mode", "MODE", "on", "Whether payloads are deferred: off, receive (open references only) or on"),
    setting("threshold", "SIZE", "256KiB", "Payloads of this size and larger are deferred"),
    setting("budget", "SIZE", "256MiB", "Memory of each instance for payloads it holds"),
    setting(
        "in-flight",
        "SIZE",
        "budget",
        "Memory of each instance for payloads on their way to its function; `budget`: as much as any may hold",
    ),
    setting("digest-max", "SIZE", "64KiB", "Payloads up to this size carry a SHA-256"),
    setting("data-tls", "BOOL", "false", "Whether payloads travel between instances by TLS 1.3"),
    setting(
        "proxy-env",
        "BOOL",
        "true",
        "Whether functions get http_proxy, so that plain clients invoke through Zipline",
    ),
    setting(
        "instance-uids",
        "WHEN",
        "auto",
        "Whether each instance gets a user of its own: auto (if root), off or require",
    ),
    setting("ready-timeout", "TIME", "60s", "How long a function may take to become ready"),
    setting("grace", "TIME", "10s", "How long what runs may take to end"),
    setting("held-max", "COUNT", "1000", "Requests held per function while no instance can take them"),
    setting(
        "log",
        "FILTER",
        "info",
        "Which log lines of Zipline are shown: error, warn, info, debug, or per module",
    ),
    setting("log-format", "FORMAT", "text", "How they look: text or json"),
];
