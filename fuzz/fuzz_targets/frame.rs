//! The content of one frame. Tags keep a fuzzer out, so it seals what it is given: whatever a writer was made to
//! compress must come back.
#![no_main]

use everpoint_format::codec::{Codec, Compressor};
use everpoint_format::seal::{
    FrameOpener, FrameSealer, KeyRing, MAX_FRAME_RAW, ObjectAddress, ObjectKind, RepositoryId, frame_lengths,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame_lengths(bytes);
    let address = ObjectAddress { repository: RepositoryId([7; 16]), name: "a", kind: ObjectKind::Pack };
    let keys = KeyRing::clear();
    let mut sealer = FrameSealer::new(&address, &keys, [1; 32]).expect("a sealer");
    let opener = FrameOpener::new(&address, sealer.header(), &keys).expect("an opener");
    let mut raw = Vec::new();
    let _ = opener.open(0, bytes, &mut raw);
    let Some((first, content)) = bytes.split_first() else {
        return;
    };
    let codec = match first % 3 {
        0 => Codec::Raw,
        1 => Codec::Zstd(i32::from(first / 3 % 4)),
        _ => Codec::Lz4,
    };
    let content = &content[..content.len().min(MAX_FRAME_RAW)];
    let mut sealed = Vec::new();
    sealer.seal(&mut Compressor::new(), codec, content, &mut sealed).expect("a frame");
    opener.open(0, &sealed, &mut raw).expect("the frame again");
    assert_eq!(raw, content);
});
