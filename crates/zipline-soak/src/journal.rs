//! What functions wrote down, held against what was sent.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Length and SHA-256 of a request's body.
pub type Content = (u64, String);

/// What was sent under which request id.
#[derive(Debug, Default)]
pub struct Sent(Mutex<HashMap<String, Content>>);

impl Sent {
    /// Remembers a request before it is sent.
    pub fn add(&self, id: String, content: Content) {
        self.0.lock().insert(id, content);
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is wrong with the journals of all functions, one line each.
#[must_use]
pub fn violations(journals: &[String], sent: &Sent) -> Vec<String> {
    let sent = sent.0.lock();
    let (mut runs, mut wrong) = (HashMap::<&str, u32>::new(), Vec::new());
    for line in journals.iter().flat_map(|journal| journal.lines()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", id] => {
                let runs = runs.entry(id).or_default();
                *runs += 1;
                if *runs == 2 {
                    wrong.push(format!("the invocation {id} ran more than once"));
                }
                if !sent.contains_key(id) {
                    wrong.push(format!("the invocation {id} ran and was never sent"));
                }
            }
            ["end", id, length, sha256] => {
                let complete = sent.get(id).is_some_and(|(sent_length, sent_sha256)| {
                    length.parse() == Ok(*sent_length) && sha256 == sent_sha256
                });
                if !complete {
                    wrong.push(format!(
                        "the body of {id} ended as if complete after {length} bytes: {:?} was sent",
                        sent.get(id)
                    ));
                }
            }
            ["broken", _, _] | ["listening", _] => {}
            _ => wrong.push(format!("a line that no function writes: {line:?}")),
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(journal: &str) -> Vec<String> {
        let sent = Sent::default();
        sent.add("a".to_owned(), (5, "aa".to_owned()));
        sent.add("b".to_owned(), (6, "bb".to_owned()));
        violations(&[journal.to_owned()], &sent)
    }

    #[test]
    fn what_may_happen_is_not_reported() {
        let none: [String; 0] = [];
        assert_eq!(check("listening 1.2.3.4:5\nbegin a\nbegin b\nbroken b 3\nend a 5 aa\n"), none);
        assert_eq!(check("begin a\n"), none);
    }

    #[test]
    fn what_may_not_happen_is_reported() {
        for journal in [
            "begin a\nbegin a\n",
            "begin a\nend a 4 aa\n",
            "begin a\nend a 5 bb\n",
            "begin c\n",
            "begin a\nend b 5 aa\n",
            "beg",
        ] {
            assert_eq!(check(journal).len(), 1, "{journal}");
        }
    }
}
