package oracle;

import java.nio.file.*;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.graph.ComputationGraph;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;

/** Gradient and score of networks with noise, from their seeds. */
final class Noise {
    /** Arguments: folders with conf.json, in.npy and labels.npy, the labels of each output; each gets gradient.npy, and a line with its score and the generator's last state. */
    public static void main(String[] folders) throws Exception {
        Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
        for (String folder : folders) {
            Path dir = Paths.get(folder);
            String conf = Files.readString(dir.resolve("conf.json"));
            INDArray in = Npy.read(dir.resolve("in.npy")), labels = Npy.read(dir.resolve("labels.npy"));
            INDArray gradient;
            double score;
            if (conf.contains("\"vertexInputs\"")) {
                ComputationGraph net = new ComputationGraph(ComputationGraphConfiguration.fromJson(conf));
                net.init();
                Nd4j.getRandom().setSeed(123);
                INDArray[] all = new INDArray[net.getNumOutputArrays()];
                java.util.Arrays.fill(all, labels);
                net.setInputs(in);
                net.setLabels(all);
                net.computeGradientAndScore();
                gradient = net.getFlattenedGradients();
                score = net.score();
            } else {
                MultiLayerNetwork net = new MultiLayerNetwork(MultiLayerConfiguration.fromJson(conf));
                net.init();
                Nd4j.getRandom().setSeed(123);
                net.setInput(in);
                net.setLabels(labels);
                net.computeGradientAndScore();
                gradient = net.getFlattenedGradients();
                score = net.score();
            }
            Npy.write(dir.resolve("gradient.npy"), gradient);
            System.out.println("CASE " + dir.getFileName() + " " + score + " " + ((org.nd4j.linalg.cpu.nativecpu.rng.CpuNativeRandom) Nd4j.getRandom()).nodeState());
        }
    }
}
