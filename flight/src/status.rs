//! What a client gets when something fails: a gRPC code that names the remedy, and the message as people read it.
//!
//! The text of an error travels whole, carets included, as far as the headers of HTTP/2 clients allow; a longer one ends at a line and
//! says how much is missing.

use std::fmt;

use tonic::{Code, Status};

/// Common clients refuse headers above 8 KiB, and the message is percent-encoded into one.
const MESSAGE_BYTES_MAX: usize = 6 << 10;

/// The remedy: what whoever called can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// The request is wrong: change it.
    Invalid,
    /// What the request names is not there, or not any more: ask for it anew.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// Not now: try again later, as it is.
    Unavailable,
    /// A limit of the server is reached: close something, or ask for less.
    Exhausted,
    /// Stored or read data is damaged or does not fit: repair it.
    Data,
    /// What was used is closed or was taken over: open it again.
    Closed,
    /// The token is missing or wrong.
    Unauthenticated,
    /// The server does not do that.
    Unimplemented,
    /// It was cancelled.
    Cancelled,
    /// A defect of the server: report it.
    Internal,
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What can be done.
    pub remedy: Remedy,
    /// What happened, for people.
    pub message: String,
}

/// A result whose error is a [`Failure`].
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with a message.
    pub fn new(remedy: Remedy, message: impl Into<String>) -> Self {
        Self { remedy, message: message.into() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Remedy::Invalid, message)
    }

    /// A defect of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Remedy::Internal, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(f: Failure) -> Self {
        let code = match f.remedy {
            Remedy::Invalid => Code::InvalidArgument,
            Remedy::NotFound => Code::NotFound,
            Remedy::Exists => Code::AlreadyExists,
            Remedy::Unavailable => Code::Unavailable,
            Remedy::Exhausted => Code::ResourceExhausted,
            Remedy::Data => Code::DataLoss,
            Remedy::Closed => Code::FailedPrecondition,
            Remedy::Unauthenticated => Code::Unauthenticated,
            Remedy::Unimplemented => Code::Unimplemented,
            Remedy::Cancelled => Code::Cancelled,
            Remedy::Internal => Code::Internal,
        };
        Status::new(code, shortened(&f.message))
    }
}

impl From<Status> for Failure {
    fn from(s: Status) -> Self {
        let remedy = match s.code() {
            Code::InvalidArgument | Code::OutOfRange => Remedy::Invalid,
            Code::NotFound => Remedy::NotFound,
            Code::AlreadyExists => Remedy::Exists,
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => Remedy::Unavailable,
            Code::ResourceExhausted => Remedy::Exhausted,
            Code::DataLoss => Remedy::Data,
            Code::FailedPrecondition => Remedy::Closed,
            Code::Unauthenticated | Code::PermissionDenied => Remedy::Unauthenticated,
            Code::Unimplemented => Remedy::Unimplemented,
            Code::Cancelled => Remedy::Cancelled,
            Code::Ok | Code::Unknown | Code::Internal => Remedy::Internal,
        };
        Self::new(remedy, s.message())
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::invalid(e.to_string())
    }
}

/// The bytes of a text once it is percent-encoded.
fn encoded_bytes(text: &str) -> usize {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/|^[]".contains(&b) { 1 } else { 3 }).sum()
}

fn shortened(message: &str) -> String {
    if encoded_bytes(message) <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let (mut kept, mut bytes) = (String::new(), 0);
    let lines: Vec<&str> = message.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        bytes += encoded_bytes(line) + 3;
        if bytes > MESSAGE_BYTES_MAX - 128 {
            if kept.is_empty() {
                kept = line.chars().take(MESSAGE_BYTES_MAX / 9).collect();
                kept.push('\n');
            }
            kept.push_str(&format!("... ({} more lines)", lines.len() - i));
            return kept;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_survive_the_wire() {
        use Remedy::*;
        for remedy in [Invalid, NotFound, Exists, Unavailable, Exhausted, Data, Closed, Unauthenticated, Unimplemented, Cancelled, Internal]
        {
            let failure = Failure::new(remedy, "unknown stream \"s\"\n  --> <sql>:1:1");
            assert_eq!(Failure::from(Status::from(failure.clone())), failure);
        }
    }

    #[test]
    fn a_long_message_ends_at_a_line() {
        let message = "a line of some words\n".repeat(1000);
        let short = shortened(&message);
        assert!(encoded_bytes(&short) <= MESSAGE_BYTES_MAX, "{}", encoded_bytes(&short));
        assert!(short.ends_with("more lines)"), "{short}");
        assert!(encoded_bytes(&shortened(&"é".repeat(10_000))) <= MESSAGE_BYTES_MAX);
    }
}
