// SPDX-License-Identifier: Apache-2.0
//! What a guest says, taken apart into its stages while it comes.
//!
//! The other end is `vm/guest`. A line that begins with the mark of this run is about a stage;
//! everything else is output of the stage that has begun last.

/// The output of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) text: String,
    /// How it ended; `None`: it has not.
    pub(crate) status: Option<i32>,
}

/// Takes bytes as they come.
#[derive(Debug)]
pub(crate) struct Stream {
    mark: String,
    /// The line that has not ended yet.
    line: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    /// Whether the guest has said that it is done.
    pub(crate) done: bool,
}

impl Stream {
    pub(crate) fn new(mark: &str) -> Stream {
        Stream {
            mark: mark.to_owned(),
            line: Vec::new(),
            parts: Vec::new(),
            done: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(&String::from_utf8_lossy(&line));
            }
        }
    }

    /// The stage that is running now.
    pub(crate) fn running(&self) -> Option<&str> {
        let last = self.parts.last()?;
        last.status.is_none().then_some(&last.name)
    }

    fn take(&mut self, line: &str) {
        let Some(words) = line.strip_prefix(&self.mark) else {
            if let Some(part) = self.parts.last_mut()
                && part.status.is_none()
            {
                part.text.push_str(line);
            }
            return;
        };
        let words: Vec<&str> = words.split_whitespace().collect();
        match words[..] {
            ["begin", name] => self.parts.push(Part {
                name: name.to_owned(),
                ..Part::default()
            }),
            ["end", name, status] => {
                if let Some(part) = self.parts.last_mut()
                    && part.name == name
                {
                    part.status = status.parse().ok();
                }
            }
            ["done"] => self.done = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    const SAID: &str = "noise\n\n@7 begin one\nfirst\nsecond\n\n@7 end one 0\nbetween\n\n@7 begin two\n\
                        @8 end two 0\nunfinished\n@7 end two 101\n\n@7 done\n";

    #[test]
    fn output_belongs_to_the_stage_that_runs() {
        for size in [1, 7, SAID.len()] {
            let mut stream = Stream::new("@7");
            for bytes in SAID.as_bytes().chunks(size) {
                stream.push(bytes);
            }
            assert!(stream.done);
            let [one, two] = &stream.parts[..] else {
                panic!("{stream:?}");
            };
            assert_eq!((&*one.name, &*one.text), ("one", "first\nsecond\n\n"));
            assert_eq!(one.status, Some(0));
            assert_eq!(two.text, "@8 end two 0\nunfinished\n");
            assert_eq!(two.status, Some(101));
        }
    }

    #[test]
    fn a_stage_that_did_not_end_has_no_status() {
        let mut stream = Stream::new("@7");
        stream.push(b"@7 begin one\nhalf");
        assert_eq!(stream.running(), Some("one"));
        assert!(!stream.done);
        assert_eq!(stream.parts[0].status, None);
        stream.push(b"\n@7 end one 1\n");
        assert_eq!(stream.running(), None);
        assert_eq!(stream.parts[0].status, Some(1));
    }
}
