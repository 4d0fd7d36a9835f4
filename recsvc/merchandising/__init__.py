"""What marketers keep: placements, pages, segments, recalls; checked, previewed, published."""
