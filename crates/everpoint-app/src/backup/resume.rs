//! What an interrupted backup left: frames that no map names, found again by their content.

use std::collections::HashMap;

use everpoint_format::manifest::{Extent, PackId};
use everpoint_format::seal::FrameRef;
use everpoint_repo::ClusterRepo;

use crate::AppError;

/// At most so many runs are remembered (64 bytes each): as many full frames as 256 GiB hold. What is beyond is stored
/// again, which costs space until it is reclaimed, never correctness.
const REMEMBERED: usize = 1 << 20;

/// Runs that are stored already, by their hash.
#[derive(Debug, Default)]
pub struct Resumed {
    runs: HashMap<[u8; 16], (PackId, FrameRef, u32, u32)>,
}

impl Resumed {
    /// Reads the indexes of all packs that no map names. Packs that can't be read are passed over: they are then not
    /// reused, and reported by verification.
    ///
    /// # Errors
    /// If the repository can't be listed.
    pub fn load(cluster: &ClusterRepo) -> Result<Self, AppError> {
        let mut runs = HashMap::new();
        for pack in cluster.orphan_packs()? {
            let Ok(index) = cluster.open_pack(pack).and_then(|reader| reader.index()) else {
                continue;
            };
            for run in index {
                if runs.len() >= REMEMBERED {
                    return Ok(Self { runs });
                }
                runs.insert(run.hash, (pack, run.frame, run.skip, run.length));
            }
        }
        Ok(Self { runs })
    }

    /// Where a run of this content is stored.
    #[must_use]
    pub fn find(&self, hash: &[u8; 16], length: usize) -> Option<Extent> {
        let (pack, frame, skip, known) = self.runs.get(hash)?;
        (*known as usize == length).then_some(Extent::Stored {
            length: *known,
            pack: *pack,
            frame: *frame,
            skip: *skip,
        })
    }

    /// How many bytes are known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.values().map(|(_, _, _, length)| u64::from(*length)).sum()
    }
}
