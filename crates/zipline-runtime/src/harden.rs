//! Keeps a process's memory from other processes of the same user.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Makes this process not dumpable: no core file, and `/proc/self/mem` and `ptrace` only for root. A process that holds
/// keys calls it before it reads them. Executing another program undoes it, so functions are not affected.
///
/// # Errors
/// The system refused; keys must not be read then.
pub fn not_dumpable() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    #[test]
    fn the_process_is_no_longer_dumpable() {
        super::not_dumpable().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
