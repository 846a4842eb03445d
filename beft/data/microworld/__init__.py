"""Generated text of which the truth is known: sentences, pairs, stories, people and posts of one small world."""
