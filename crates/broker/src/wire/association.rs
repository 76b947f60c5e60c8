//! One end of an association: which frame comes next, and which one is next to be sent.

use nsquorum_links::Class;
use nsquorum_topic::Term;

use super::Header;

/// What a received frame is to an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Place {
    /// The next one.
    Next,
    /// A later one: one before it was lost, and the association with it.
    Gap,
    /// Of another association, or a repetition: to be ignored.
    Foreign,
}

/// One end of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Association {
    term: Term,
    sync: u64,
    sent: [u64; 2],
    received: [u64; 2],
}

impl Association {
    /// The leader's end; it sends `Lead` next.
    pub(crate) const fn open(term: Term, sync: u64) -> Self {
        Self {
            term,
            sync,
            sent: [0; 2],
            received: [0; 2],
        }
    }

    /// The router's end, after `Lead`.
    pub(crate) const fn join(lead: Header) -> Self {
        let mut association = Self::open(lead.term, lead.sync);
        association.received[Class::Control as usize] = 1;
        association
    }

    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// The header of the next frame of a class.
    pub(crate) const fn send(&mut self, class: Class) -> Header {
        let counter = self.sent[class as usize];
        self.sent[class as usize] += 1;
        Header {
            term: self.term,
            sync: self.sync,
            counter,
        }
    }

    /// Looks at a received frame's header; if it is the next one, the one after it is next from now on.
    pub(crate) fn receive(&mut self, header: Header, class: Class) -> Place {
        let expected = &mut self.received[class as usize];
        if (header.term, header.sync) != (self.term, self.sync) || header.counter < *expected {
            Place::Foreign
        } else if header.counter > *expected {
            Place::Gap
        } else {
            *expected += 1;
            Place::Next
        }
    }
}
