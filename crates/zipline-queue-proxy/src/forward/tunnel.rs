//! A tunnel: bytes both ways between two streams, each direction closed by itself, until both are or nothing moves.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until};

/// A tunnel through which nothing moved for this long is closed.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

/// Bytes in memory per direction.
const BUFFER: usize = 32 * 1024;

/// What moved through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// From the first stream to the second.
    pub(super) up_bytes: u64,
    /// From the second to the first.
    pub(super) down_bytes: u64,
}

/// Moves bytes between `a` and `b` until both directions have ended, one of them failed, or nothing moved for `idle`.
pub(super) async fn run<A, B>(a: A, b: B, idle: Duration) -> Moved
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let state = Mutex::new((Instant::now(), Moved::default()));
    let (mut from_a, mut to_a) = split(a);
    let (mut from_b, mut to_b) = split(b);
    let up = pump(&mut from_a, &mut to_b, |bytes| {
        let mut state = state.lock();
        state.0 = Instant::now();
        state.1.up_bytes += bytes;
    });
    let down = pump(&mut from_b, &mut to_a, |bytes| {
        let mut state = state.lock();
        state.0 = Instant::now();
        state.1.down_bytes += bytes;
    });
    let both = async {
        // Who fails ends the tunnel: half of it is of no use to either side.
        let ended = tokio::try_join!(up, down);
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel broke");
        }
    };
    tokio::select! {
        () = both => {}
        () = silence(&state, idle) => tracing::debug!("a tunnel was idle for too long"),
    }
    state.into_inner().1
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved(read as u64);
    }
}

/// Resolves once nothing moved for `idle`.
async fn silence(state: &Mutex<(Instant, Moved)>, idle: Duration) {
    loop {
        let until = state.lock().0 + idle;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn each_direction_closes_by_itself() {
        let (mut client, a) = duplex(64);
        let (mut server, b) = duplex(64);
        let ends = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            server.read_to_string(&mut asked).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answered = String::new();
            client.read_to_string(&mut answered).await.unwrap();
            (asked, answered)
        };
        let (moved, (asked, answered)) = tokio::join!(run(a, b, IDLE), ends);
        assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
        assert_eq!(moved, Moved { up_bytes: 8, down_bytes: 6 });
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_tunnel_is_closed() {
        let (mut client, a) = duplex(64);
        let (_server, b) = duplex(64);
        let started = Instant::now();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            client.write_all(b"x").await.unwrap();
        };
        let (moved, ()) = tokio::join!(run(a, b, Duration::from_secs(10)), ends);
        assert_eq!(started.elapsed(), Duration::from_secs(15));
        assert_eq!(moved.up_bytes, 1);
    }
}
