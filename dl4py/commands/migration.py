"""What DL4J has beside its named parts, and what does it here."""

from __future__ import annotations

import inspect
import re
from typing import Any

from dl4py import evaluation, zoo

# kind → (DL4J's class, what stands for it here, a remark); names of dl4py are whole
CONCEPTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "network": (
        (
            "org.deeplearning4j.nn.conf.NeuralNetConfiguration",
            "dl4py.NeuralNetConfiguration",
            "builder() in snake_case; camelCase does too",
        ),
        (
            "org.deeplearning4j.nn.conf.MultiLayerConfiguration",
            "dl4py.MultiLayerConfiguration",
            "module(), lightning(), to_json(), to_yaml()",
        ),
        (
            "org.deeplearning4j.nn.conf.ComputationGraphConfiguration",
            "dl4py.config.ComputationGraphConfiguration",
            "graph_builder() makes one",
        ),
        (
            "org.deeplearning4j.nn.conf.inputs.InputType",
            "dl4py.InputType",
            "feed_forward, recurrent, convolutional, ...",
        ),
        (
            "org.deeplearning4j.nn.multilayer.MultiLayerNetwork",
            "dl4py.Network",
            "conf.module(): fit, output, score, evaluate, rnn_time_step, pretrain",
        ),
        (
            "org.deeplearning4j.nn.graph.ComputationGraph",
            "dl4py.Network",
            "the same class; several inputs and outputs are tuples or dicts",
        ),
        (
            "org.deeplearning4j.util.ModelSerializer",
            "dl4py.restore",
            "and dl4py.save: the same zip, normalizer and updater state included",
        ),
        (
            "org.nd4j.linalg.api.ndarray.INDArray",
            "torch.Tensor",
            "files of Nd4j.write: dl4py.io.read_ndarray",
        ),
        (
            "org.deeplearning4j.nn.transferlearning.TransferLearning",
            "dl4py.transfer",
            "freeze_until, remove, add, n_out_replace, ...; chains and graphs",
        ),
        (
            "org.deeplearning4j.nn.transferlearning.FineTuneConfiguration",
            "dl4py.transfer(net).fine_tune(...)",
            "a builder's words: updater, l2, seed, ...",
        ),
        (
            "org.deeplearning4j.nn.transferlearning.TransferLearningHelper",
            "dl4py.TransferHelper",
            "featurize, fit_featurized, output_from_featurized",
        ),
        (
            "org.nd4j.linalg.api.rng.Random",
            "dl4py.NativeRandom",
            "DL4J's numbers of a seed; torch's generators without it",
        ),
        (
            "org.deeplearning4j.gradientcheck.GradientCheckUtil",
            "torch.autograd.gradcheck",
            "on a network in double",
        ),
        (
            "org.nd4j.linalg.api.memory.MemoryWorkspace",
            "—",
            "torch's allocator; settings of workspaces are read and kept",
        ),
    ),
    "training": (
        (
            "org.deeplearning4j.ui.model.stats.StatsListener",
            "dl4py.StatsCallback",
            "TensorBoard, laid out like the training UI",
        ),
        (
            "org.deeplearning4j.ui.api.UIServer",
            "tensorboard --logdir",
            "or dl4py report RUN, a page of HTML",
        ),
        (
            "org.deeplearning4j.optimize.listeners.ScoreIterationListener",
            "lightning.Trainer(log_every_n_steps=...)",
            "train_loss is the score, on the progress bar and in every logger",
        ),
        (
            "org.deeplearning4j.optimize.listeners.CollectScoresIterationListener",
            "lightning.pytorch.loggers.CSVLogger",
            "",
        ),
        (
            "org.deeplearning4j.optimize.listeners.PerformanceListener",
            "dl4py.StatsCallback",
            "or Lightning's ThroughputMonitor",
        ),
        (
            "org.deeplearning4j.optimize.listeners.TimeIterationListener",
            "lightning.pytorch.callbacks.Timer",
            "",
        ),
        (
            "org.deeplearning4j.optimize.listeners.EvaluativeListener",
            "lightning.Trainer(val_check_interval=...)",
            "with validation data",
        ),
        (
            "org.deeplearning4j.optimize.listeners.CheckpointListener",
            "lightning.pytorch.callbacks.ModelCheckpoint",
            "two of them keep the last and every n-th",
        ),
        (
            "org.deeplearning4j.earlystopping.EarlyStoppingConfiguration",
            "dl4py.stopping.EarlyStopping",
            "under a Trainer the callback dl4py.lightning.EarlyStopping",
        ),
        (
            "org.deeplearning4j.earlystopping.trainer.EarlyStoppingTrainer",
            "dl4py.stopping.EarlyStopping(...).fit",
            "gives a dl4py.stopping.Result: EarlyStoppingResult",
        ),
        (
            "org.deeplearning4j.earlystopping.saver.LocalFileModelSaver",
            "dl4py.stopping.FileSaver",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.saver.InMemoryModelSaver",
            "dl4py.stopping.MemorySaver",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.MaxEpochsTerminationCondition",
            "dl4py.stopping.MaxEpochs",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.BestScoreEpochTerminationCondition",
            "dl4py.stopping.BestScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.ScoreImprovementEpochTerminationCondition",
            "dl4py.stopping.ScoreImprovement",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.MaxTimeIterationTerminationCondition",
            "dl4py.stopping.MaxTime",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.MaxScoreIterationTerminationCondition",
            "dl4py.stopping.MaxScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.termination.InvalidScoreIterationTerminationCondition",
            "dl4py.stopping.InvalidScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.scorecalc.DataSetLossCalculator",
            "dl4py.stopping.DataSetLoss",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.scorecalc.ClassificationScoreCalculator",
            "dl4py.stopping.ClassificationScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.scorecalc.RegressionScoreCalculator",
            "dl4py.stopping.RegressionScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.scorecalc.ROCScoreCalculator",
            "dl4py.stopping.ROCScore",
            "",
        ),
        (
            "org.deeplearning4j.earlystopping.scorecalc.AutoencoderScoreCalculator",
            "dl4py.stopping.ReconstructionScore",
            "",
        ),
        (
            "org.deeplearning4j.parallelism.ParallelWrapper",
            "lightning.Trainer(strategy='ddp')",
            "",
        ),
        (
            "org.deeplearning4j.parallelism.ParallelInference",
            "dl4py serve",
            "or dl4py.serving.serve; batches requests, over HTTP",
        ),
        (
            "org.deeplearning4j.remote.JsonModelServer",
            "dl4py serve",
            "JSON, npy, npz and Arrow",
        ),
        (
            "org.deeplearning4j.spark.parameterserver.training.SharedTrainingMaster",
            "dl4py.spark.fit",
            "the default: mean gradients, uncompressed",
        ),
        (
            "org.deeplearning4j.spark.impl.paramavg.ParameterAveragingTrainingMaster",
            "dl4py.spark.fit(averaging_frequency=...)",
            "",
        ),
        (
            "org.deeplearning4j.spark.impl.multilayer.SparkDl4jMultiLayer",
            "dl4py.spark.NetworkEstimator",
            "or dl4py.spark.fit and dl4py.spark.transform",
        ),
        (
            "org.deeplearning4j.spark.impl.graph.SparkComputationGraph",
            "dl4py.spark.NetworkEstimator",
            "fitted it is a dl4py.spark.NetworkModel",
        ),
        (
            "org.deeplearning4j.arbiter.MultiLayerSpace",
            "dl4py.sklearn.Classifier",
            "or Regressor, in scikit-learn's GridSearchCV and pipelines",
        ),
        (
            "org.deeplearning4j.arbiter.optimize.runner.LocalOptimizationRunner",
            "optuna.create_study",
            "examples/optuna_search.py",
        ),
    ),
    "data": (
        (
            "org.nd4j.linalg.dataset.DataSet",
            "(x, labels, features_mask, labels_mask)",
            "a tuple or a dict; files of DataSet.save: dl4py.io.read_dataset",
        ),
        (
            "org.nd4j.linalg.dataset.api.iterator.DataSetIterator",
            "torch.utils.data.DataLoader",
            "dl4py.data.read(...).loader(...)",
        ),
        (
            "org.deeplearning4j.datasets.iterator.impl.IrisDataSetIterator",
            "dl4py.data.iris",
            "",
        ),
        (
            "org.datavec.api.records.reader.RecordReader",
            "dl4py.data.read",
            "help(dl4py.data) has a table of DataVec's words",
        ),
        (
            "org.datavec.api.transform.TransformProcess",
            "pandas, polars",
            "then dl4py.data.read of a Parquet file",
        ),
    ),
    "not here": (
        (
            "org.nd4j.autodiff.samediff.SameDiff",
            "torch, ONNX Runtime",
            "graphs (.fb) and SameDiff layers; write them as torch modules",
        ),
        (
            "org.deeplearning4j.models.word2vec.Word2Vec",
            "gensim",
            "ParagraphVectors, GloVe and their zips too",
        ),
        (
            "org.deeplearning4j.nn.conf.layers.RBM",
            "dl4py.config.VariationalAutoencoder",
            "or AutoEncoder: networks of old files that hold none are read",
        ),
        (
            "a Java class of your own",
            "dl4py.registry",
            "a twin in Python, registered under the Java class's name",
        ),
        (
            "org.deeplearning4j.nn.modelimport.keras.KerasModelImport",
            "keras, ONNX",
            "a zip that came from it is read as any other",
        ),
        (
            "org.deeplearning4j.zoo.model.ResNet50",
            "timm, torchvision",
            "VGG16, Darknet19 and the others; their zips are read",
        ),
        (
            "org.deeplearning4j.clustering.kmeans.KMeansClustering",
            "scikit-learn, openTSNE, FAISS",
            "trees of neighbours and t-SNE too",
        ),
        (
            "org.deeplearning4j.graph.models.deepwalk.DeepWalk",
            "PyTorch Geometric",
            "",
        ),
        (
            "org.deeplearning4j.rl4j.learning.Learning",
            "stable-baselines3, TorchRL",
            "",
        ),
    ),
}


def concepts() -> list[dict[str, Any]]:
    """Rows as those of :func:`dl4py.commands.names.rows`: evaluations, the zoo, and
    what has no name in a registry.
    """
    found = [
        _row("evaluation", getattr(evaluation, name), f"dl4py.evaluation.{name}")
        for name in evaluation.__all__
    ]
    found += [
        _row("zoo", item, f"dl4py.zoo.{name}")
        for name, item in vars(zoo).items()
        if inspect.isfunction(item) and item.__module__ == zoo.__name__
    ]
    for kind, rows in CONCEPTS.items():
        for java, name, what in rows:
            row = {"kind": kind, "name": name, "also": [], "java": java, "what": what}
            found.append(row)
    return found


def _row(kind: str, item: Any, name: str) -> dict[str, Any]:
    """What an item's help says of itself."""
    text = inspect.getdoc(item) or ""
    java = re.search(r"DL4J: (org\.\S+)", text)
    return {
        "kind": kind,
        "name": name,
        "also": [],
        "java": java[1] if java else None,
        "what": text.partition("\n")[0].rstrip("."),
    }
