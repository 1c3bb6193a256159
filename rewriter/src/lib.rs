//! Policy to filter to payload to layout to a patched file that has been verified.
