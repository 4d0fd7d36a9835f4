"""Events in the words of other platforms, each translated by a pure function into ours."""
