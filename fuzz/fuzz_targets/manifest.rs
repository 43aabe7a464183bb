//! An image map. What is read can be written and is the same when it is read again.
#![no_main]

use everpoint_format::manifest::{FileEntry, ManifestReader, ManifestWriter};
use libfuzzer_sys::fuzz_target;

fn entries(reader: &mut ManifestReader<&[u8]>) -> Option<Vec<FileEntry>> {
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        found.push(entry);
    }
    Some(found)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = ManifestReader::new(bytes) else {
        return;
    };
    let Some(found) = entries(&mut reader) else { return };
    let mut writer = ManifestWriter::new(Vec::new(), reader.record()).expect("a writer");
    for entry in &found {
        writer.entry(entry).expect("an entry that was read");
    }
    let written = writer.finish().expect("an end");
    let mut again = ManifestReader::new(written.as_slice()).expect("a map");
    assert_eq!(entries(&mut again), Some(found));
});
