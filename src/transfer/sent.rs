//! What files come to on the wire.

/// Bytes of one sent file, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes that went over the wire.
    pub literal_bytes: u64,
    /// Bytes the receiving side had already.
    pub matched_bytes: u64,
    /// The blocks that they were found as.
    pub matches: u64,
    /// How often a block's weak sum fitted and its strong sum did not.
    pub false_alarms: u64,
    /// All that went over the wire for them: what was said of each file, its tokens and its sum, as they are compressed.
    pub wire_bytes: u64,
}
