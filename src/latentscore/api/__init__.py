"""The public functions: answers to texts, models that answer, render and streams; and the interface of the public package."""
