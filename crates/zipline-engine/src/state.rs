//! The state directory: one engine per directory, its control socket, its logs, and a list of all it started.
//!
//! The list survives a crash of engine and guard, so that `down` can still end exactly those processes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::process;

/// Longest path of a Unix socket on Linux, its ending zero byte taken off.
const SOCKET_PATH_MAX: usize = 107;
/// Longest name below the state directory that has to fit into a socket path: `instances/<6 digits>/api.sock`;
/// `host/<boot id>` is one shorter.
const SOCKET_NAME_MAX: usize = 28;

/// Rounds of looking for processes that escaped; only a fork bomb needs more than two.
const STRAY_ROUNDS: usize = 100;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another engine uses it.
    #[error("an engine already runs with state directory {}: process {pid}; use `zipline down` first, or another --state-dir", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
        /// The engine's process id; 0 if it has not written it yet.
        pid: i32,
    },
    /// Someone else could reach into it.
    #[error("state directory {} {finding}: remove it or choose another with --state-dir", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        finding: String,
    },
    /// Sockets in it would have names that are too long.
    #[error("state directory {} is {length} characters long, at most {limit} leave room for socket names: choose a shorter --state-dir", path.display())]
    TooLong {
        /// The directory.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The longest length.
        limit: usize,
    },
    /// A file in it could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A state directory that was checked: it belongs to this user, and nobody else can read or write it.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Where the state is if nothing else is said: `$XDG_RUNTIME_DIR/zipline`, or `/tmp/zipline-<uid>` if that variable
    /// is not set. Under root always the latter, since processes of other users may have to pass through it.
    #[must_use]
    pub fn default_path(xdg_runtime_dir: Option<&Path>) -> PathBuf {
        let uid = rustix::process::geteuid();
        match xdg_runtime_dir {
            Some(folder) if folder.is_absolute() && !uid.is_root() => folder.join("zipline"),
            _ => PathBuf::from(format!("/tmp/zipline-{}", uid.as_raw())),
        }
    }

    /// Opens the directory, making it if it is not there.
    ///
    /// # Errors
    /// [`StateError::Unsafe`] if it is a link, someone else's, or open to others; [`StateError::TooLong`];
    /// [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let path = std::path::absolute(path).map_err(|source| StateError::Io {
            action: "find",
            path: path.to_path_buf(),
            source,
        })?;
        let limit = SOCKET_PATH_MAX - SOCKET_NAME_MAX - 1;
        let length = path.as_os_str().len();
        if length > limit {
            return Err(StateError::TooLong { path, length, limit });
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| StateError::Io { action: "make", path: path.clone(), source })?;
        Self::check(path)
    }

    /// Opens the directory if it is there: for commands that talk to an engine.
    ///
    /// # Errors
    /// As [`StateDir::open`], and [`StateError::Io`] if it is not there.
    pub fn existing(path: &Path) -> Result<Self, StateError> {
        let path = std::path::absolute(path).map_err(|source| StateError::Io {
            action: "find",
            path: path.to_path_buf(),
            source,
        })?;
        Self::check(path)
    }

    fn check(path: PathBuf) -> Result<Self, StateError> {
        let data = fs::symlink_metadata(&path).map_err(|source| StateError::Io {
            action: "look at",
            path: path.clone(),
            source,
        })?;
        let own = rustix::process::geteuid().as_raw();
        let finding = if !data.is_dir() {
            Some("is not a directory".to_owned())
        } else if data.uid() != own {
            Some(format!("belongs to user {}, not to {own}", data.uid()))
        } else if data.mode() & 0o066 != 0 {
            // Passing through (x) is given to others by the engine itself where instances have users of their own.
            Some(format!("has mode {:o}, so other users could reach into it", data.mode() & 0o777))
        } else {
            None
        };
        match finding {
            Some(finding) => Err(StateError::Unsafe { path, finding }),
            None => Ok(Self { path }),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The folder of log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The folder of an instance's socket.
    pub(crate) fn instance(&self, number: u64) -> PathBuf {
        self.path.join("instances").join(number.to_string())
    }

    /// Where queue-proxies find each other's sockets.
    pub(crate) fn host(&self) -> PathBuf {
        self.path.join("host")
    }

    /// An empty folder for the sockets of queue-proxies. Those of other users may each make one and connect to those whose
    /// names they know, and neither list nor remove what others made.
    pub(crate) fn make_host(&self, for_other_users: bool) -> Result<PathBuf, StateError> {
        let path = self.host();
        let fail = |action, source| StateError::Io { action, path: path.clone(), source };
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("clear", error)),
            _ => {}
        }
        let mode = if for_other_users { 0o1733 } else { 0o700 };
        fs::create_dir(&path).map_err(|source| fail("make", source))?;
        // Not by the mode of making it, which the process's mask would cut.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(|source| fail("open", source))?;
        Ok(path)
    }

    /// Lets processes of other users pass through to their own instance folders; they still see no names in it.
    pub(crate) fn let_pass(&self) -> Result<(), StateError> {
        for path in [self.path.clone(), self.path.join("instances")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o711))
                .map_err(|source| StateError::Io { action: "open a way through", path, source })?;
        }
        Ok(())
    }

    /// Makes this process the one engine of the directory, and prepares its folders.
    pub(crate) fn lock(&self) -> Result<Lock, StateError> {
        let path = self.path.join("lock");
        let fail = |action, source| StateError::Io { action, path: path.clone(), source };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(|source| fail("open", source))?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(fail("lock", error.into()));
            }
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(StateError::Running {
                path: self.path.clone(),
                pid: text.trim().parse().unwrap_or(0),
            });
        }
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(|source| fail("write", source))?;
        for folder in [self.logs(), self.path.join("instances")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|source| StateError::Io { action: "make", path: folder.clone(), source })?;
        }
        Ok(Lock { _file: file })
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("processes.json")
    }

    /// Ends what an engine left behind that crashed together with its guard. Does nothing while an engine runs.
    ///
    /// # Errors
    /// [`StateError::Running`] if the engine is alive; [`StateError::Io`].
    pub fn end_leftovers(&self) -> Result<Vec<Leftover>, StateError> {
        let _lock = self.lock()?;
        self.end_recorded()
    }

    /// Ends what the list names, process groups whole. A process is only touched if it has the start time of the list.
    pub(crate) fn end_recorded(&self) -> Result<Vec<Leftover>, StateError> {
        let path = self.record_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.end_strays()),
            Err(source) => return Err(StateError::Io { action: "read", path, source }),
        };
        let record: Recorded = serde_json::from_str(&text).map_err(|error| StateError::Io {
            action: "understand",
            path: path.clone(),
            source: error.into(),
        })?;
        let mut ended = Vec::new();
        if record.boot == process::boot_id() {
            for leftover in record.processes {
                let same = process::stat(leftover.pid)
                    .is_some_and(|stat| stat.start_ticks == leftover.start_ticks && !stat.zombie);
                if same {
                    process::signal_group(leftover.pid, Signal::KILL);
                    process::signal(leftover.pid, Signal::KILL);
                    ended.push(leftover);
                }
            }
        }
        ended.extend(self.end_strays());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { action: "remove", path, source: error })
            }
            _ => Ok(ended),
        }
    }
}

impl StateDir {
    /// Ends processes that functions of this directory started and that escaped their groups. They may start others
    /// meanwhile, so it looks again until it finds none, a bounded number of times.
    pub(crate) fn end_strays(&self) -> Vec<Leftover> {
        let mut ended: Vec<Leftover> = Vec::new();
        for _ in 0..STRAY_ROUNDS {
            let mut found = false;
            for pid in process::with_function_environment(&self.path.join("instances")) {
                let Some(stat) = process::stat(pid).filter(|stat| !stat.zombie) else { continue };
                process::signal(pid, Signal::KILL);
                if !ended.iter().any(|other| other.pid == pid && other.start_ticks == stat.start_ticks) {
                    found = true;
                    let what = "a process that a function left behind".into();
                    ended.push(Leftover { pid, start_ticks: stat.start_ticks, what });
                }
            }
            if !found {
                break;
            }
        }
        ended
    }
}

/// Held by the engine for its life; the kernel lets go of it whatever way the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// A process that an engine started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Its process id, which is also its process group's.
    pub pid: i32,
    /// Its start, in clock ticks since the machine's.
    pub start_ticks: u64,
    /// What it is, for people.
    pub what: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    schema: u32,
    boot: String,
    engine: i32,
    processes: Vec<Leftover>,
}

/// The list of processes that run, kept on disk. Writing is a few hundred bytes into a runtime directory, which is
/// memory, so it is done in place: a process must stand in the list before anything else happens.
#[derive(Debug)]
pub(crate) struct Register {
    dir: StateDir,
    running: Mutex<Vec<Leftover>>,
}

impl Register {
    pub(crate) fn new(dir: StateDir) -> Self {
        Self { dir, running: Mutex::new(Vec::new()) }
    }

    pub(crate) fn add(&self, pid: i32, what: &str) {
        let Some(stat) = process::stat(pid) else { return };
        let mut running = self.running.lock();
        running.push(Leftover { pid, start_ticks: stat.start_ticks, what: what.to_owned() });
        self.write(&running);
    }

    pub(crate) fn remove(&self, pid: i32) {
        let mut running = self.running.lock();
        running.retain(|process| process.pid != pid);
        self.write(&running);
    }

    fn write(&self, running: &[Leftover]) {
        let record = Recorded {
            schema: 1,
            boot: process::boot_id(),
            engine: i32::try_from(std::process::id()).unwrap_or(0),
            processes: running.to_vec(),
        };
        let path = self.dir.record_path();
        let next = path.with_extension("json.next");
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            serde_json::to_writer(&mut file, &record)?;
            fs::rename(&next, &path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, path = %path.display(), "cannot write the list of processes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    fn open() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&folder.path().join("state")).unwrap();
        (folder, dir)
    }

    #[test]
    fn directories_open_to_others_are_refused() {
        let (_folder, dir) = open();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("has mode 750"), "{error}");
    }

    #[test]
    fn links_are_refused() {
        let (folder, dir) = open();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(matches!(StateDir::open(&link), Err(StateError::Unsafe { .. })));
    }

    #[test]
    fn long_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = StateDir::open(&folder.path().join("x".repeat(100))).unwrap_err();
        assert!(matches!(error, StateError::TooLong { .. }));
    }

    #[test]
    fn a_second_engine_is_told_which_one_runs() {
        let (_folder, dir) = open();
        let lock = dir.lock().unwrap();
        match dir.lock() {
            Err(StateError::Running { pid, .. }) => {
                assert_eq!(pid, i32::try_from(std::process::id()).unwrap())
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        once_free(|| dir.lock());
    }

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("600").process_group(0).stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn strays_are_known_by_their_environment() {
        let (_folder, dir) = open();
        let socket = dir.instance(1).join("api.sock");
        let start = |service: Option<&str>, socket: &Path| {
            let mut command = Command::new("sleep");
            command.arg("600").stdin(Stdio::null()).env("ZIPLINE_SOCKET", socket);
            if let Some(service) = service {
                command.env("K_SERVICE", service);
            }
            command.spawn().unwrap()
        };
        let mut stray = start(Some("a"), &socket);
        let mut guest = start(None, &socket);
        let mut other = start(Some("a"), Path::new("/elsewhere/instances/1/api.sock"));
        let ended = once_free(|| dir.end_leftovers());
        assert_eq!(
            ended.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [i32::try_from(stray.id()).unwrap()]
        );
        assert!(!stray.wait().unwrap().success());
        for spared in [&mut guest, &mut other] {
            assert!(spared.try_wait().unwrap().is_none());
            spared.kill().unwrap();
            spared.wait().unwrap();
        }
    }

    /// A child that another test of this process has forked shares the lock until it has become its program.
    fn once_free<T>(mut attempt: impl FnMut() -> Result<T, StateError>) -> T {
        for _ in 0..1_000_000 {
            match attempt() {
                Err(StateError::Running { .. }) => std::thread::yield_now(),
                done => return done.unwrap(),
            }
        }
        panic!("the lock is never free")
    }

    #[test]
    fn leftovers_are_ended_and_nothing_else() {
        let (_folder, dir) = open();
        let register = Register::new(dir.clone());
        let (mut ours, mut reused) = (sleeper(), sleeper());
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        register.add(pid(&ours), "function a.default");
        register.add(pid(&reused), "function b.default");
        // As if the second id had been given to another process since.
        let text = fs::read_to_string(dir.record_path()).unwrap();
        let mut record: Recorded = serde_json::from_str(&text).unwrap();
        record.processes[1].start_ticks += 1;
        fs::write(dir.record_path(), serde_json::to_string(&record).unwrap()).unwrap();

        let ended = once_free(|| dir.end_leftovers());
        assert_eq!(ended.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid(&ours)]);
        assert!(!ours.wait().unwrap().success());
        assert!(reused.try_wait().unwrap().is_none(), "a process of another start time was ended");
        reused.kill().unwrap();
        reused.wait().unwrap();
        assert_eq!(once_free(|| dir.end_leftovers()), []);
    }
}
