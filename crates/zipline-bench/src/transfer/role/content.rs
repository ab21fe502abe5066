//! What payloads hold: words that follow from run, giver, payload and place, so that a byte of any other payload, run or place
//! is noticed.

use anyhow::ensure;

/// Odd, so that no two places of a payload hold the same word.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = 8;

/// The content of one payload in one run.
#[derive(Debug, Clone, Copy)]
pub(in crate::transfer) struct Content(u64);

impl Content {
    pub(in crate::transfer) fn new(seed: u64, giver: u32, payload: usize) -> Self {
        let mixed =
            (seed ^ u64::from(giver) << 40 ^ (payload as u64) << 20).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(mixed ^ mixed >> 32)
    }

    /// Fills `memory`, which begins at byte 0.
    pub(in crate::transfer) fn write(self, memory: &mut [u8]) {
        let mut words = memory.chunks_exact_mut(WORD);
        for (place, word) in (0_u64..).zip(&mut words) {
            word.copy_from_slice(&self.word(place));
        }
        let rest = words.into_remainder();
        let last = self.word(u64::MAX);
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Reads all `parts`, which together are the payload.
    ///
    /// # Errors
    /// If there are more or fewer bytes than `bytes`, or other ones.
    pub(in crate::transfer) fn verify(self, parts: &[&[u8]], bytes: usize) -> anyhow::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        ensure!(length == bytes, "{length} bytes in place of {bytes}");
        let mut at = 0;
        for part in parts {
            // The first bytes of a part may be the end of a word.
            let (edge, whole) = part.split_at((WORD - at % WORD).min(part.len()) % WORD);
            for byte in edge {
                ensure!(*byte == self.byte(at, bytes), "byte {at} is wrong");
                at += 1;
            }
            let words = whole.chunks_exact(WORD);
            let rest = words.remainder();
            let first = (at / WORD) as u64;
            let wrong = (first..).zip(words.clone()).fold(0, |wrong, (place, word)| {
                let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
                wrong | (word ^ u64::from_ne_bytes(self.word(place)))
            });
            ensure!(wrong == 0, "a word from byte {at} on is wrong");
            at += whole.len() - rest.len();
            for byte in rest {
                ensure!(*byte == self.byte(at, bytes), "byte {at} is wrong");
                at += 1;
            }
        }
        Ok(())
    }

    fn word(self, place: u64) -> [u8; WORD] {
        self.0.wrapping_add(place.wrapping_mul(STEP)).to_ne_bytes()
    }

    fn byte(self, at: usize, bytes: usize) -> u8 {
        let place = if at < bytes / WORD * WORD { (at / WORD) as u64 } else { u64::MAX };
        self.word(place)[at % WORD]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_right_however_it_is_cut() {
        let content = Content::new(7, 3, 1);
        for bytes in [0, 1, 7, 8, 9, 1000, 4099] {
            let mut memory = vec![0; bytes];
            content.write(&mut memory);
            for cut in [0, 1, 5, 8, 13, bytes / 2].into_iter().filter(|cut| *cut <= bytes) {
                let (head, tail) = memory.split_at(cut);
                content.verify(&[head, tail], bytes).unwrap();
            }
        }
    }

    #[test]
    fn anything_else_is_noticed() {
        let mut memory = vec![0; 1003];
        let content = Content::new(7, 3, 1);
        content.write(&mut memory);
        for other in [Content::new(8, 3, 1), Content::new(7, 4, 1), Content::new(7, 3, 2)] {
            other.verify(&[&memory], memory.len()).unwrap_err();
        }
        content.verify(&[&memory[..1002]], memory.len()).unwrap_err();
        for at in [0, 500, 999, 1002] {
            memory[at] ^= 1;
            content.verify(&[&memory], memory.len()).unwrap_err();
            content.verify(&[&memory[..at], &memory[at..]], memory.len()).unwrap_err();
            memory[at] ^= 1;
        }
    }
}
