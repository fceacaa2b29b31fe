//! Rows to proven copies: poller, bounded queue, workers, recorder.
