//! The decoder's way from page to page.

use super::super::format::WAL_PAGE_BYTES;
use super::super::page::{LONG_HEADER_BYTES, PageHeader};
use super::{State, WalDecoder, first};

impl WalDecoder {
    pub(super) fn page_header(&mut self, bytes: &[u8], missing: u64) -> usize {
        let taken = first(bytes, missing);
        self.page_head.extend_from_slice(taken);
        if taken.len() as u64 == missing {
            let page = self.position - self.position % WAL_PAGE_BYTES;
            let head = std::mem::take(&mut self.page_head);
            if std::mem::take(&mut self.page_head_lost) {
                return taken.len();
            }
            self.begin_page(page, &head);
            self.page_head = head;
            self.page_head.clear();
        }
        taken.len()
    }

    fn begin_page(&mut self, page: u64, head: &[u8]) {
        if head.iter().all(|byte| *byte == 0) {
            let from = if let State::Inside(record) = &self.state { record.start } else { page };
            self.state = State::Ended { from };
            return;
        }
        let header = match PageHeader::parse(head) {
            Ok(header) => header,
            Err(reason) => return self.broken(page, reason),
        };
        if let Some(reason) = self.page_fault(page, head.len() as u64, &header) {
            return self.broken(page, reason);
        }
        self.format = Some(header.format);
        self.timeline = header.timeline;
        if let Some(segment) = header.segment {
            self.system = segment.system;
        }
        self.connect_page(page, &header);
    }

    /// What the header says that can't be, in words.
    fn page_fault(&self, page: u64, head_bytes: u64, header: &PageHeader) -> Option<String> {
        if header.position != page {
            return Some(format!("the page says that it belongs at {:X}", header.position));
        }
        if header.segment.is_some() != (head_bytes == LONG_HEADER_BYTES) {
            return Some("the page header has the wrong length for its place".to_owned());
        }
        if header.timeline < self.timeline {
            return Some(format!("timeline {} follows timeline {}", header.timeline, self.timeline));
        }
        if self.format.is_some_and(|format| format != header.format) {
            return Some("the version of the log changes within it".to_owned());
        }
        let segment = header.segment?;
        if u64::from(segment.segment_size) != self.segment_size {
            return Some(format!("the page says that segments have {} bytes", segment.segment_size));
        }
        if u64::from(segment.page_size) != WAL_PAGE_BYTES {
            return Some(format!("pages of {} bytes are not supported", segment.page_size));
        }
        (self.system != 0 && segment.system != self.system)
            .then(|| format!("the system identifier changes to {}", segment.system))
    }

    /// Fits what the page begins with to the record before.
    fn connect_page(&mut self, page: u64, header: &PageHeader) {
        let remaining = u64::from(header.remaining);
        match &mut self.state {
            State::Inside(_) | State::Skipping { .. } if header.overwrites => {
                self.state = State::Between { known: true };
            }
            State::Inside(record) => {
                let expected = record.remaining();
                if !header.continues || expected != Some(remaining) {
                    let at = record.start;
                    self.broken(at, "the record does not continue on the next page");
                }
            }
            State::Skipping { remaining: expected } if !header.continues || *expected != remaining => {
                self.broken(page, "the record does not continue on the next page");
            }
            State::Between { known: false } if header.continues && remaining > 0 => {
                self.piece.head_unknown = true;
                self.state = State::Skipping { remaining };
            }
            State::Between { .. } if header.continues => {
                self.broken(page, "the page continues a record that did not begin");
            }
            State::Between { known } => *known = true,
            _ => {}
        }
    }
}
